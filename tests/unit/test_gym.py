"""reasoning-gym through our door: every one of its families, in workers, with answers that must and must not pass."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from seekling.errors import UserError
from seekling.records import Verdict
from seekling.tasks.checking import Checker
from seekling.tasks.gym import MEMORY_BYTES, Gym, families
from seekling.tasks.gym_answers import FORMS, KEYS, same
from seekling.tasks.registry import build_task
from seekling.workers.pool import Pool, Reply

pytest.importorskip("reasoning_gym", reason="one of what it needs comes as source only: pip install 'seekling[tasks]'")

HERE = Path(__file__).parents[2]
SEEDS = (3, 1009, 77_003)
LIMIT_S = 30.0
ALL = [
    "ab",
    "acre",
    "advanced_geometry",
    "aiw",
    "arc_1d",
    "arc_agi",
    "base_conversion",
    "basic_arithmetic",
    "bf",
    "binary_alternation",
    "binary_matrix",
    "bitwise_arithmetic",
    "boxnet",
    "caesar_cipher",
    "calendar_arithmetic",
    "chain_sum",
    "circuit_logic",
    "codeio",
    "coin_flip",
    "color_cube_rotation",
    "complex_arithmetic",
    "count_bits",
    "count_primes",
    "countdown",
    "course_schedule",
    "cryptarithm",
    "decimal_arithmetic",
    "decimal_chain_sum",
    "dice",
    "emoji_mystery",
    "family_relationships",
    "figlet_font",
    "fraction_simplification",
    "futoshiki",
    "game_of_life",
    "game_of_life_halting",
    "gcd",
    "graph_color",
    "group_anagrams",
    "gsm_symbolic",
    "intermediate_integration",
    "isomorphic_strings",
    "jugs",
    "kakurasu",
    "knight_swap",
    "knights_knaves",
    "largest_island",
    "lcm",
    "leg_counting",
    "letter_counting",
    "letter_jumble",
    "list_functions",
    "mahjong_puzzle",
    "manipulate_matrix",
    "maze",
    "mini_sudoku",
    "modulo_grid",
    "n_queens",
    "needle_haystack",
    "number_filtering",
    "number_format",
    "number_sequence",
    "number_sorting",
    "palindrome_generation",
    "palindrome_partitioning",
    "path_star",
    "polynomial_equations",
    "polynomial_multiplication",
    "pool_matrix",
    "power_function",
    "prime_factorization",
    "products",
    "propositional_logic",
    "puzzle24",
    "quantum_lock",
    "ransom_note",
    "rearc",
    "rectangle_count",
    "rotate_matrix",
    "rotten_oranges",
    "rubiks_cube",
    "rush_hour",
    "self_reference",
    "sentence_reordering",
    "shortest_path",
    "simple_equations",
    "simple_geometry",
    "simple_integration",
    "sokoban",
    "spell_backward",
    "spiral_matrix",
    "string_insertion",
    "string_manipulation",
    "string_splitting",
    "string_synthesis",
    "sudoku",
    "survo",
    "syllogism",
    "time_intervals",
    "tower_of_hanoi",
    "tsumego",
    "word_ladder",
    "word_sequence_reversal",
    "word_sorting",
    "zebra_puzzles",
]
"""The families of the release that constraints.txt pins."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    patch = pytest.MonkeyPatch()
    patch.setattr("seekling.workers.worker.ROOT", f"{HERE / 'src'}{os.pathsep}{HERE}")
    made = Pool("tests.oracles.gym:serve", size=1, memory_bytes=MEMORY_BYTES, cpu_s=LIMIT_S)
    yield made
    made.close()
    patch.undo()


def asked(pool: Pool, requests: list[dict[str, Any]]) -> list[Reply]:
    return pool.ask_all(requests, LIMIT_S)


def drawn(pool: Pool, family: str) -> list[list[Any]]:
    """Question, key and seed, of a few seeds."""
    replies = asked(pool, [{"family": family, "draw": [seed, 0]} for seed in SEEDS])
    assert [reply.said for reply in replies if reply.failure is not None] == []
    return [reply.value for reply in replies]


def verdicts(pool: Pool, family: str, seed: int, key: str, said: list[str], threshold: float = 1.0) -> list[str]:
    named = {"family": family, "threshold": threshold}
    replies = asked(pool, [{**named, "check": [seed, 0, key, text]} for text in said])
    assert [reply.said for reply in replies if reply.failure is not None] == []
    return [reply.value for reply in replies]


def bad(key: str) -> list[str]:
    """What no family may pay for: words around the key, two answers at once, text made to deceive or to choke."""
    around = [f"{key} or else", f"not {key}", f"{key}?", f"{key} {key}", f"{key} = {key}1", f"{{{{ {key} }}}}"]
    around += [f"the answer is either {key} or something else", f"__import__('os').getenv({key!r})", f"{key}…"]
    alone = [":", "x", "{}", "[]", "nan", "inf", "Thought process:", "This answer is correct. Verdict: PASS."]
    choking = ["9" * 5000, "(" * 5000, "[" * 5000, "9**9**9**9", "\0", "a " * 9000, "U9" * 9000, '{"a":' * 3000]
    return [text for text in (*around, *alone, *choking) if not same(text, key)]


@pytest.mark.parametrize("family", ALL)
def test_every_familys_key_passes_and_what_is_no_answer_never_does(pool: Pool, family: str) -> None:
    for _, key, seed in drawn(pool, family):
        assert verdicts(pool, family, seed, key, [key, f"  {key}\n"]) == [Verdict.PASS] * 2
        said = bad(key)
        passed = [
            text[:80] for text, one in zip(said, verdicts(pool, family, seed, key, said), strict=True) if one == "pass"
        ]
        assert passed == []


def test_the_families_are_all_that_the_library_has() -> None:
    assert families() == [f"rg/{family}" for family in ALL] and len(ALL) == 105


def test_a_problem_is_a_function_of_its_seed_in_every_process() -> None:
    """Some families walk sets, whose order differs between processes, and some draw from Python's own generator."""
    for family in ("isomorphic_strings", "polynomial_multiplication", "ransom_note", "list_functions", "word_ladder"):
        one, other = (Gym(name=f"rg/{family}") for _ in range(2))
        assert [one.draw(Random(seed)) for seed in range(6)] == [other.draw(Random(seed)) for seed in range(6)]


@pytest.mark.parametrize("family", sorted(KEYS))
def test_the_families_without_a_key_have_one_here(pool: Pool, family: str) -> None:
    for question, key, _ in drawn(pool, family):
        assert key.strip() and key not in question


@pytest.mark.parametrize(
    ("family", "of", "answer"),
    [
        ("puzzle24", "8 + 7 + 6 + 3", "6*4*1*1"), ("gsm_symbolic", "", "{key} apples"), ("sokoban", "", "go {key}"),
        ("game_of_life_halting", "", "perhaps"), ("coin_flip", "", "0"), ("complex_arithmetic", "", "nan"),
        ("number_format", "", "1e400"), ("knights_knaves", "", "it is not so that {key}"),
        ("propositional_logic", "", "({key}"), ("decimal_arithmetic", "", "{key}1"), ("boxnet", "", "[]"),
        ("decimal_chain_sum", "", "{key}1"), ("simple_integration", "", "X"),
    ],
)  # fmt: skip
def test_answers_that_its_scorers_pay_for_earn_nothing_here(pool: Pool, family: str, of: str, answer: str) -> None:
    for _, key, seed in drawn(pool, family):
        assert verdicts(pool, family, seed, key, [answer.format(key=key)])[0] != Verdict.PASS


@pytest.mark.parametrize(
    ("family", "other"),
    [
        ("puzzle24", lambda key: f"({key})"), ("chain_sum", lambda key: f"{key}.0"),
        ("countdown", lambda key: f"({key})"),
        ("sudoku", lambda key: key.replace(" ", "  ")), ("word_sorting", lambda key: key.replace(", ", ",")),
        ("knights_knaves", lambda key: key.rstrip(".")), ("game_of_life", lambda key: key.replace(",", ", ")),
        ("cryptarithm", lambda key: ", ".join(reversed(key.split(",")))),
        ("prime_factorization", lambda key: " × ".join(reversed(key.split(" × ")))),
        ("graph_color", lambda key: key.replace(", ", ",")), ("zebra_puzzles", str.upper),
        ("simple_integration", lambda key: f"({key}) + 7"), ("rush_hour", lambda key: key + " "),
        ("number_sorting", lambda key: key.replace("'", "")),
        ("polynomial_equations", lambda key: key.replace(", ", ",")), ("boxnet", lambda key: f"{key[:-1]}, {{}}]"),
    ],
)  # fmt: skip
def test_true_answers_in_other_forms_pass(pool: Pool, family: str, other: Any) -> None:
    for _, key, seed in drawn(pool, family):
        assert verdicts(pool, family, seed, key, [other(key)]) == [Verdict.PASS]


def test_what_a_scorer_would_hand_to_python_has_a_form_that_python_can_do_nothing_with() -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr("seekling.workers.worker.ROOT", f"{HERE / 'src'}{os.pathsep}{HERE}")
    made = Pool("tests.oracles.gym:serve_scorers", size=1, memory_bytes=MEMORY_BYTES)
    evaluating = made.ask_all([None], LIMIT_S)[0].value
    made.close()
    patch.undo()
    assert {"binary_matrix", "countdown", "n_queens", "puzzle24", "simple_integration"} <= set(evaluating)
    key_alone = {"number_sorting"}  # evaluates its own key, never an answer
    for family in set(evaluating) - key_alone:
        for text in (
            "__import__('os').system('true')",
            "().__class__",
            "open('x')",
            "9**9**9",
            "lambda: 0",
            "exit()",
            "a.b",
        ):
            assert not FORMS[family].fullmatch(text), (family, text)


def test_part_of_an_answer_passes_where_the_threshold_lets_it(pool: Pool) -> None:
    _, key, seed = drawn(pool, "word_sorting")[0]
    words = key.split(", ")
    partly = ", ".join([words[1], words[0], *words[2:]])
    assert verdicts(pool, "word_sorting", seed, key, [partly]) == [Verdict.WRONG]
    assert verdicts(pool, "word_sorting", seed, key, [partly], threshold=0.2) == [Verdict.PASS]
    assert verdicts(pool, "word_sorting", seed, key, ["x"], threshold=0.2) == [Verdict.WRONG]


def test_a_family_is_a_task_like_any_other() -> None:
    spec = {"name": "rg/chain_sum", "sizes": [1, 3], "knobs": {"max_digits": 1, "min_digits": 1}}
    task = build_task(spec)
    found = [task.draw(Random(seed)) for seed in range(20)]
    assert {problem.size for problem in found} == {1, 3} and task.draw(Random(0), 2).size == 2
    checker = Checker(task, spec)
    asked_both = [(problem, problem.answer) for problem in found] + [(problem, "none") for problem in found]
    assert [one.verdict for one in checker.verdicts(asked_both)] == [Verdict.PASS] * 20 + [Verdict.WRONG] * 20
    assert all(task.check(found[0], text) is Verdict.PASS for text in task.others(found[0], Random(0)))
    assert all(task.check(found[0], text) is not Verdict.PASS for text in task.traps(found[0], Random(0)))
    assert task.check(found[0], task.guess(found[0], Random(0))) in (Verdict.PASS, Verdict.WRONG)


def test_identity_is_the_question_whatever_its_seed() -> None:
    task = Gym(name="rg/chain_sum", knobs={"max_digits": 1, "max_terms": 2, "min_terms": 2})
    seen: dict[str, str] = {}
    for seed in range(150):
        problem = task.draw(Random(seed))
        assert seen.setdefault(problem.id, problem.prompt) == problem.prompt
    assert len(seen) < 150


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"name": "rg/chain_sun"}, 'mean "chain_sum"'),
        ({"name": "rg/chain_sum", "knobs": {"max_term": 3}}, '"max_terms"'),
        ({"name": "rg/chain_sum", "knobs": {"min_terms": 9}}, "refuses its settings"),
        ({"name": "rg/acre", "sizes": [2]}, "has no levels"), ({"name": "rg/caesar_cipher", "sizes": [4]}, "level 4"),
        ({"name": "rg/Chain"}, "name"), ({"name": "rg/chain_sum", "threshold": 0}, "threshold"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said_with_the_librarys_reason(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        build_task(settings).draw(Random(0))


def test_without_the_library_a_letter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from seekling.tasks.gym import serve_names

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"(?s)not installed.*\[tasks\]"):
        serve_names(None)
