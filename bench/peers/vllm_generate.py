"""vLLM's side of bench/rivals.py, run by it in vLLM's environment: seconds of ``generate`` on a folder.

It knows nothing of Seekling. Weights and arithmetic in the precision named, sampling from the whole vocabulary.
"""

from __future__ import annotations

import json
import sys
import time

PROMPT, VOCABULARY = 64, 512


def main() -> None:
    """Print one line of JSON: seconds of each round after the first."""
    from vllm import LLM, SamplingParams

    folder, dtype, batch, new, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    eager = sys.argv[6] == "eager"
    model = LLM(
        model=folder, dtype=dtype, enforce_eager=eager, max_model_len=512, max_num_seqs=max(batch, 1), seed=0,
        skip_tokenizer_init=True, enable_prefix_caching=False, disable_log_stats=True,
    )  # fmt: skip
    how = SamplingParams(temperature=1.0, max_tokens=new, min_tokens=new, ignore_eos=True, detokenize=False)
    seconds = []
    for turn in range(rounds + 1):
        asked = [
            {
                "prompt_token_ids": [
                    3 + (7 * row + 13 * place + row * place + turn) % (VOCABULARY - 3) for place in range(PROMPT)
                ]
            }
            for row in range(batch)
        ]
        began = time.perf_counter()
        said = model.generate(asked, how, use_tqdm=False)
        seconds.append(time.perf_counter() - began)
        assert sum(len(one.outputs[0].token_ids) for one in said) == batch * new
    print("FOUND" + json.dumps(seconds[1:]))


if __name__ == "__main__":
    main()
