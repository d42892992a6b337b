"""transformers' side of bench/decode.py, run by it: seconds of ``generate`` on a folder, as it comes.

It knows nothing of Seekling. Its default experts and attention; sampling from the whole vocabulary, nothing ends early.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM

PROMPT, NEW, VOCABULARY = 64, 128, 512


def main() -> None:
    """Print one line of JSON: seconds of each round after the first."""
    folder, dtype, batch, rounds = sys.argv[1], getattr(torch, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    asked = [
        [3 + (7 * row + 13 * place + row * place) % (VOCABULARY - 3) for place in range(PROMPT)] for row in range(batch)
    ]
    ids = torch.tensor(asked)
    how = {"do_sample": True, "top_k": 0, "temperature": 1.0, "min_new_tokens": NEW, "max_new_tokens": NEW}
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        found = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, eos_token_id=None, **how)
        seconds.append(time.perf_counter() - began)
        assert found.shape == (batch, PROMPT + NEW)
    print("FOUND" + json.dumps(seconds[1:]))


if __name__ == "__main__":
    main()
