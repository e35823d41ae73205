"""A chat template of the shape of Qwen3's."""

from __future__ import annotations

# As Qwen3 (with single newlines, because the tiny tokenizer splits as GPT-2 does, which ties a
# double newline to what follows): the answer is rendered after an empty thinking block, which the
# generation prompt holds only when thinking is off.
QWEN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think>\n</think>\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n</think>\n' }}{% else %}{{ '<think>\n' }}{% endif %}{% endif %}"
)
