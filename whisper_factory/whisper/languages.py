"""The languages that Whisper knows, in the order of their tokens."""

from __future__ import annotations

from whisper_factory.errors import UserError, choices

# Code and English name. The place in this list is the token: appending is safe, sorting is not. Cantonese came
# with large-v3; every other model stops before it. Codes are as trained (jw is Javanese).
_TABLE = """
en english, zh chinese, de german, es spanish, ru russian, ko korean, fr french, ja japanese, pt portuguese,
tr turkish, pl polish, ca catalan, nl dutch, ar arabic, sv swedish, it italian, id indonesian, hi hindi,
fi finnish, vi vietnamese, he hebrew, uk ukrainian, el greek, ms malay, cs czech, ro romanian, da danish,
hu hungarian, ta tamil, no norwegian, th thai, ur urdu, hr croatian, bg bulgarian, lt lithuanian, la latin,
mi maori, ml malayalam, cy welsh, sk slovak, te telugu, fa persian, lv latvian, bn bengali, sr serbian,
az azerbaijani, sl slovenian, kn kannada, et estonian, mk macedonian, br breton, eu basque, is icelandic,
hy armenian, ne nepali, mn mongolian, bs bosnian, kk kazakh, sq albanian, sw swahili, gl galician,
mr marathi, pa punjabi, si sinhala, km khmer, sn shona, yo yoruba, so somali, af afrikaans, oc occitan,
ka georgian, be belarusian, tg tajik, sd sindhi, gu gujarati, am amharic, yi yiddish, lo lao, uz uzbek,
fo faroese, ht haitian creole, ps pashto, tk turkmen, nn nynorsk, mt maltese, sa sanskrit, lb luxembourgish,
my myanmar, bo tibetan, tl tagalog, mg malagasy, as assamese, tt tatar, haw hawaiian, ln lingala, ha hausa,
ba bashkir, jw javanese, su sundanese, yue cantonese
"""

LANGUAGES: dict[str, str] = dict(entry.strip().split(" ", 1) for entry in _TABLE.split(","))  # code -> name

ALIASES = {
    "burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb",
    "pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si",
    "castilian": "es", "mandarin": "zh",
}  # fmt: skip


def resolve_language(name: str, count: int = len(LANGUAGES)) -> str:
    """The code of a language given by code or English name, in any case, among a model's first `count`.

    Raises:
        UserError: the model knows no such language.
    """
    known = dict(list(LANGUAGES.items())[:count])
    wanted = name.strip().lower()
    code = ALIASES.get(wanted) or next((code for code, spelled in known.items() if spelled == wanted), wanted)
    if code not in known:
        raise UserError(f"unknown language '{name}'; {choices(wanted, known.values())} (or their codes, as in 'en')")
    return code
