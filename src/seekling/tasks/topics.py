"""What instructions ask to write about: topics, each with words that belong to it, and simple sentences about any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """A ``name`` as it stands in a sentence, and single words that a text about it may hold."""

    name: str
    words: tuple[str, ...]


def _topics(table: Mapping[str, str]) -> tuple[Topic, ...]:
    return tuple(Topic(name, tuple(words.split())) for name, words in table.items())


TOPICS: Mapping[str, tuple[Topic, ...]] = {
    "en": _topics({
        "the sea": "wave salt shore tide sail harbour island fish",
        "a garden": "seed soil rose spade bee fence shade root",
        "the weather": "cloud rain storm wind snow thunder frost fog",
        "a school": "teacher desk lesson pupil chalk book exam bell",
        "music": "drum song violin choir melody rhythm stage flute",
        "a kitchen": "oven knife bread pepper spoon kettle recipe plate",
        "the moon": "crater orbit eclipse rocket silver shadow tide night",
        "a library": "shelf novel page reader poem author index lamp",
        "a train": "station rail ticket tunnel engine whistle bridge driver",
        "a forest": "oak moss deer path mushroom owl fern bark",
        "a market": "stall price apple basket coin cheese crowd scale",
        "winter": "ice coat fire sledge frost scarf snow stove",
        "a river": "bank boat stone trout mill flood bridge source",
        "a hospital": "nurse doctor bed patient ward medicine bandage visitor",
    }),
    "zh": _topics({
        "大海": "海浪 沙滩 渔船 贝壳 灯塔 海岛 潮水 海鸥",
        "花园": "种子 泥土 玫瑰 蜜蜂 篱笆 树荫 蝴蝶 铲子",
        "天气": "云朵 大雨 雷声 北风 雪花 雾气 彩虹 冰雹",
        "学校": "老师 课桌 同学 粉笔 考试 铃声 操场 作业",
        "音乐": "鼓声 歌曲 提琴 旋律 节奏 舞台 笛子 合唱",
        "厨房": "面包 菜刀 胡椒 水壶 菜谱 盘子 炉子 勺子",
        "月亮": "星空 轨道 月食 火箭 影子 银光 夜晚 环形山",
        "图书馆": "书架 小说 读者 诗歌 作者 台灯 目录 座位",
        "火车": "车站 铁轨 车票 隧道 汽笛 大桥 司机 车厢",
        "森林": "橡树 苔藓 小鹿 小路 蘑菇 猫头鹰 松针 溪水",
        "市场": "摊位 价钱 苹果 篮子 硬币 奶酪 人群 秤砣",
        "冬天": "冰雪 大衣 炉火 雪橇 霜花 围巾 寒风 热茶",
    }),
}  # fmt: skip

SENTENCES: Mapping[str, tuple[str, ...]] = {
    "en": (
        "{Topic} is {how}", "Many people like {topic}", "I think of {topic} {when}", "Some say that {topic} is {how}",
        "You can learn a lot from {topic}", "{Topic} was always {how} to me", "My friend talks about {topic} {when}",
        "Old stories tell of {topic}", "Nothing is as {how} as {topic}", "We wrote about {topic} {when}",
    ),
    "zh": (
        "{topic}很{how}", "很多人喜欢{topic}", "我{when}想到{topic}", "有人说{topic}非常{how}",
        "我们可以从{topic}学到很多", "对我来说{topic}一直很{how}", "我的朋友{when}谈起{topic}",
        "古老的故事里有{topic}", "我{when}写过{topic}",
    ),
}  # fmt: skip
"""Sentences about any topic, without commas and without the mark at their end."""

ABOUT: Mapping[str, tuple[str, ...]] = {
    "en": ("I also remember the {word}", "The {word} belongs to it", "Do not forget the {word}"),
    "zh": ("我也记得{word}", "{word}也在其中", "别忘了{word}"),
}
"""Sentences that hold a word."""

HOW: Mapping[str, tuple[str, ...]] = {
    "en": (
        "quiet", "bright", "old", "wide", "strange", "gentle", "busy", "cold", "warm", "simple", "lively", "plain",
        "curious", "famous", "pleasant",
    ),
    "zh": ("安静", "明亮", "古老", "宽阔", "奇妙", "温和", "热闹", "寒冷", "温暖", "简单", "生动", "有名"),
}  # fmt: skip
WHEN: Mapping[str, tuple[str, ...]] = {
    "en": ("every day", "in the morning", "at night", "on Sundays", "last year", "after work", "in spring"),
    "zh": ("每天", "早上", "晚上", "星期天", "去年", "下班以后", "春天"),
}
