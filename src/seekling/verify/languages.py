"""Which language a text is in: by its script, and among languages of one script by the small words it is made of.

Not for single words or mixtures: a text is held to be in a language when no other explains more of it. Languages are
named by their two letters (ISO 639-1).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

MOST_CHARS = 100_000
"""What is looked at of a text."""

_SCRIPTS: Mapping[str, str] = {
    "latin": "A-Za-zÀ-ɏḀ-ỿ",
    "han": "\u3400-\u4dbf\u4e00-\u9fff",
    "kana": "\u3041-\u30ff",
    "hangul": "\u1100-\u11ff\uac00-\ud7af",
    "cyrillic": "\u0400-\u04ff",
    "arabic": "\u0600-\u06ff",
    "hebrew": "\u0590-\u05ff",
    "greek": "\u0370-\u03ff",
    "devanagari": "\u0900-\u097f",
    "bengali": "\u0980-\u09ff",
    "gurmukhi": "\u0a00-\u0a7f",
    "gujarati": "\u0a80-\u0aff",
    "tamil": "\u0b80-\u0bff",
    "telugu": "\u0c00-\u0c7f",
    "kannada": "\u0c80-\u0cff",
    "malayalam": "\u0d00-\u0d7f",
    "thai": "\u0e00-\u0e7f",
}
_BY_SIGN = ("han", "kana")
"""Scripts that set no blanks between words: each sign counts as one."""
_WORD_IN = re.compile(
    "|".join(f"(?P<{script}>[{signs}]{'' if script in _BY_SIGN else '+'})" for script, signs in _SCRIPTS.items())
)
_IN_SCRIPT = {script: re.compile(f"[{signs}]") for script, signs in _SCRIPTS.items()}

SCRIPT_OF: Mapping[str, str] = {
    **dict.fromkeys(("en", "es", "pt", "fr", "de", "it", "nl", "pl", "vi", "sw", "fi", "tr"), "latin"),
    **dict.fromkeys(("ru", "uk", "bg"), "cyrillic"),
    **dict.fromkeys(("ar", "fa", "ur"), "arabic"),
    **dict.fromkeys(("hi", "mr", "ne"), "devanagari"),
    "zh": "han",
    "ja": "kana",
    "ko": "hangul",
    "he": "hebrew",
    "el": "greek",
    "bn": "bengali",
    "pa": "gurmukhi",
    "gu": "gujarati",
    "ta": "tamil",
    "te": "telugu",
    "kn": "kannada",
    "ml": "malayalam",
    "th": "thai",
}
"""The languages known here, and what they are written in."""

_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the of and to in is that it for with as was on are be this by you have from not they or his her at we no"
        " only all any more than which when will would there their been has had were if so an about into them then can"
        " could your my our she him i me who what how some other these those but",
        "es": "el la los las de y que en un una es por con para se del su como más pero no al lo está muy",
        "pt": "o a os as de e que em um uma é por com para se do da dos das não mais como mas ao na no são muito",
        "fr": "le la les de et que en un une est pour dans des du qui pas ce il elle sur au avec plus ne je nous sont",
        "de": "der die das und ist in zu den mit nicht ein eine von auf für sich dem des es ich auch wir sind im sie",
        "it": "il lo la i gli le di e che in un una è per con non si del della sono come più ma al nel anche molto",
        "nl": "de het een en van is in op te dat die niet zijn met voor aan er maar om ook wij zij naar bij",
        "pl": "i w na z się nie to jest że do jak o ale po dla są od za przez który jego tak czy być",
        "vi": "và của là có trong được cho không với các một những này đã người để khi đến tôi ở rất",
        "sw": "na ya wa ni kwa katika la za cha hii kama lakini au pia sana watu hiyo yake kuwa hadi si",
        "fi": "ja on ei se että hän ovat oli kun mutta myös tai niin kuin joka ole sekä he tämä minä sen",
        "tr": "ve bir bu için ile da de çok ne o olarak daha gibi ama değil var mi olan en kadar",
        "ru": "и в не на я что он с это как по но они к у из за то все так о его от же был мы вы для",
        "uk": "і в не на я що він з це як по але вони до у із за та все так про його від же був ми ви є для",
        "bg": "и в не на аз че той с това как по но те към от за да се са е ще си при като има беше до",
        "ar": "في من على أن إلى هذا التي الذي ما لا هو هي مع عن كان و كل قد بعد أو هذه",
        "fa": "و در به از که این را با است برای آن یک می ها های خود تا شد بر هم نیز بود من ما",
        "ur": "کے کی میں ہے اور کا سے کو نے پر ہیں یہ کہ نہیں اس ایک بھی تھا وہ کر",
        "hi": "के की में है और का से को ने पर हैं यह कि नहीं एक भी था वह कर हम इस जो",
        "mr": "आहे आणि या च्या ला ची चा ने हे ते की आहेत नाही एक मी तो होते व हा असे",
        "ne": "र को छ मा ले यो हो छन् पनि एक गर्न भने का की यस लागि हुन्छ थियो म त्यो",
    }.items()
}  # fmt: skip


def is_in(text: str, language: str) -> bool:
    """Whether ``text`` is in ``language``. False for one without letters, and for a language not known here."""
    text = text[:MOST_CHARS]
    script = SCRIPT_OF.get(language)
    if script is None or _script_of(text) != script:
        return False
    rivals = [other for other, used in SCRIPT_OF.items() if used == script]
    if len(rivals) == 1:
        return True
    words = re.findall(r"[^\W\d_]+(?:[\u0900-\u097f\u0600-\u06ff]*)", text.lower())
    counts = {other: sum(word in _WORDS[other] for word in words) for other in rivals}
    return counts[language] == max(counts.values()) and (counts[language] > 0 or len(words) < 8)


def words_by_script(text: str) -> Counter[str]:
    """How many words of each script ``text`` holds. A single Latin letter is the name of something, and no word."""
    found = Counter(
        word.lastgroup
        for word in _WORD_IN.finditer(text[:MOST_CHARS])
        if word.lastgroup and (word.lastgroup != "latin" or len(word[0]) > 1)
    )
    return +_with_kana(found)


def _with_kana(counts: Counter[str]) -> Counter[str]:
    """The same, Chinese characters among kana being Japanese, whatever else a text holds."""
    is_japanese = counts["kana"] * 10 > counts["kana"] + counts["han"]
    return counts + Counter(kana=counts["han"], han=-counts["han"]) if is_japanese else counts


def _script_of(text: str) -> str | None:
    """The script of more than half of all letters."""
    counts = _with_kana(Counter({script: len(signs.findall(text)) for script, signs in _IN_SCRIPT.items()}))
    most = max(counts, key=lambda script: counts[script], default=None)
    return most if most and counts[most] * 2 > counts.total() else None
