"""config.json of other models than the recorded one, and of the generation that is not recorded."""

from __future__ import annotations

import pytest

from tests.backends.tensorrt_llm.golden import GOLDEN
from whisper_factory.backends.tensorrt_llm import configs, versions
from whisper_factory.engine_spec import Precision
from whisper_factory.whisper.dimensions import Dimensions

TINY_EN = Dimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
LARGE_V3 = Dimensions(128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 32)
TURBO = Dimensions(128, 1500, 1280, 20, 32, 51866, 448, 1280, 20, 4)


def test_large_v3() -> None:
    release = versions.parse("0.12")
    recorded = GOLDEN["0.12/tiny.en-int8-sm80/encoder"]["config"]
    assert configs.encoder(release, LARGE_V3, "W8A16") == recorded | {
        "hidden_size": 1280, "n_mels": 128, "num_attention_heads": 20, "num_hidden_layers": 32, "num_languages": 100,
        "vocab_size": 51866}
    recorded = GOLDEN["0.12/tiny.en-int8-sm80/decoder"]["config"]
    assert configs.decoder(release, LARGE_V3, "W8A16") == recorded | {
        "encoder_hidden_size": 1280, "encoder_num_heads": 20, "ffn_hidden_size": 5120, "hidden_size": 1280,
        "num_attention_heads": 20, "num_hidden_layers": 32, "vocab_size": 51866}


def test_turbo_has_a_shallow_decoder() -> None:
    release = versions.parse("1.0")
    assert configs.encoder(release, TURBO, None)["num_hidden_layers"] == 32
    assert configs.decoder(release, TURBO, None)["num_hidden_layers"] == 4


@pytest.mark.parametrize(("vocabulary", "languages"), [(51864, 99), (51865, 99), (51866, 100)])
def test_languages(vocabulary: int, languages: int) -> None:
    dimensions = Dimensions(80, 1500, 384, 6, 4, vocabulary, 448, 384, 6, 4)
    assert configs.encoder(versions.parse("0.15"), dimensions, None)["num_languages"] == languages


def test_g2_has_the_keys_of_g3() -> None:
    g2, g3 = versions.parse("0.15"), versions.parse("1.3.0rc3")
    assert configs.encoder(g2, TINY_EN, None) == configs.encoder(g3, TINY_EN, None)
    assert configs.decoder(g2, TINY_EN, None) == configs.decoder(g3, TINY_EN, None)


@pytest.mark.parametrize("version", ["0.12", "0.17", "1.0"])
@pytest.mark.parametrize("dimensions", [TINY_EN, LARGE_V3, TURBO])
def test_dimensions_come_back(version: str, dimensions: Dimensions) -> None:
    release = versions.parse(version)
    assert configs.dimensions(configs.encoder(release, dimensions, None),
                              configs.decoder(release, dimensions, None)) == dimensions


def test_quant_algo() -> None:
    for name, bits, algorithm in (("float16", 0, None), ("int8", 8, "W8A16"), ("int4", 4, "W4A16")):
        found = configs.quant_algo(Precision(name, bits, "float16"))
        assert found == algorithm
        assert configs.bits(found) == bits
