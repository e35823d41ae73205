"""Audits that look for known artifact patterns in anyone's results (PAPER.md section 8)."""
