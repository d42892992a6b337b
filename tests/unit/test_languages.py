"""Languages: one sentence of each, known as that and as no other; and text that is in none."""

from __future__ import annotations

import time

import pytest

from seekling.verify.languages import SCRIPT_OF, is_in, words_by_script

SAID = {
    "en": "The sea is large and it is full of fish.",
    "de": "Das Meer ist groß und voller Fische.",
    "es": "El mar es grande y está lleno de peces.",
    "fr": "La mer est grande et pleine de poissons.",
    "pt": "O mar é grande e está cheio de peixes, não é?",
    "it": "Il mare è grande ed è pieno di pesci.",
    "nl": "De zee is groot en vol met vis, maar het is niet diep.",
    "tr": "Deniz çok büyük ve içinde bir sürü balık var.",
    "pl": "Morze jest duże i jest w nim dużo ryb, ale nie wiem.",
    "vi": "Biển rất lớn và có nhiều cá trong đó.",
    "sw": "Bahari ni kubwa na ina samaki wengi sana.",
    "fi": "Meri on suuri ja se on täynnä kaloja.",
    "ru": "Море большое, и в нём много рыбы, но я не знаю.",
    "uk": "Море велике, і в ньому багато риби, але я не знаю що це.",
    "bg": "Морето е голямо и в него има много риба.",
    "el": "Η θάλασσα είναι μεγάλη.",
    "ar": "البحر كبير و فيه كثير من السمك في كل مكان",
    "fa": "دریا بزرگ است و در آن ماهی های زیادی است",
    "ur": "سمندر بڑا ہے اور اس میں بہت مچھلیاں ہیں",
    "he": "הים גדול ומלא בדגים.",
    "hi": "समुद्र बड़ा है और इसमें बहुत मछलियाँ हैं।",
    "mr": "समुद्र मोठा आहे आणि त्यात खूप मासे आहेत",
    "ne": "समुद्र ठूलो छ र यसमा धेरै माछा छन्",
    "bn": "সমুদ্র বড় এবং মাছে ভরা।",
    "pa": "ਸਮੁੰਦਰ ਵੱਡਾ ਹੈ।",
    "gu": "સમુદ્ર મોટો છે.",
    "ta": "கடல் பெரியது.",
    "te": "సముద్రం పెద్దది.",
    "kn": "ಸಮುದ್ರ ದೊಡ್ಡದು.",
    "ml": "കടൽ വലുതാണ്.",
    "th": "ทะเลกว้างใหญ่และมีปลามากมาย",
    "zh": "大海很大，里面有很多鱼。",
    "ja": "海は大きくて、魚がたくさんいます。",
    "ko": "바다는 크고 물고기가 많다.",
}


def test_every_language_has_a_sentence_here() -> None:
    assert SAID.keys() == SCRIPT_OF.keys()


@pytest.mark.parametrize("language", sorted(SAID))
def test_a_sentence_is_in_its_language_and_in_no_other(language: str) -> None:
    assert [other for other in SAID if is_in(SAID[language], other)] == [language]


def test_case_and_a_few_foreign_words_do_not_matter() -> None:
    assert is_in(SAID["en"].upper(), "en") and is_in("我们用Python写程序，很快。", "zh")


@pytest.mark.parametrize("text", ["", "123 !?", "море the sea и of море"])
def test_what_has_no_letters_or_is_half_and_half_is_not_english(text: str) -> None:
    assert not is_in(text, "en")


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", {}),
        ("12 + 7 = x", {}),
        ("add 三 and 四", {"latin": 2, "han": 2}),
        ("足し算をします", {"kana": 7}),
        ("море is big", {"cyrillic": 1, "latin": 2}),
    ],
)
def test_words_are_counted_by_script(text: str, counts: dict[str, int]) -> None:
    assert words_by_script(text) == counts


def test_a_language_that_is_not_known_is_never_found() -> None:
    assert not is_in("Saluton al la mondo", "eo")


def test_long_text_takes_no_time() -> None:
    start = time.process_time()
    for piece in ("a", "a ", "海", "और", "."):
        is_in(piece * 500_000, "en")
    assert time.process_time() - start < 4.0
