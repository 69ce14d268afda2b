"""The memory table: rows of the card, lengths forced in a process of its own, the prediction beside what was measured."""

import json

import pytest

from mft.cli.main import main
from mft.errors import ConfigError
from mft.modeling.shape import Shape
from mft.quantization.memory_table import Row, measure_memory, predicted_bytes, rows_at

CODELLAMA_34B = Shape(48, 8192, 22016, 64, 8, 128, 32000)


def test_rows_are_those_of_the_card_and_scale():
    assert [(row.prompt, row.new) for row in rows_at(1)] == [(0, 0), (2048, 1024), (1024, 2048)]
    assert [row.name for row in rows_at(1)] == ["idle", "encode 2048 + generate 1024", "encode 1024 + generate 2048"]
    assert [(row.prompt, row.new) for row in rows_at(0.0625)] == [(0, 0), (128, 64), (64, 128)]


def test_the_prediction_of_the_34b_orders_its_cells_as_the_card_does():
    """idle < 1024 in, 2048 out < 2048 in, 1024 out; the same keys and values in both, so that the prompt makes the difference."""
    cells = {row.name: predicted_bytes(18970886144, CODELLAMA_34B, row) for row in rows_at(1)}
    idle, long_in, long_out = cells.values()
    assert idle == 18970886144
    assert idle < long_out < long_in
    assert long_in - long_out == 2 * 1024 * (2 * 8192 + 3 * 22016)
    assert predicted_bytes(0, CODELLAMA_34B, Row("", 2048, 1024)) > 3072 * 192 * 1024


def test_rows_longer_than_the_model_are_refused_with_the_scale_that_fits(small_llama):
    with pytest.raises(ConfigError, match=r"the rows take 3072 tokens, a model was made for 512; give --scale 0.167 or less"):
        measure_memory([("small", small_llama)], 1.0, lambda *_: None)


@pytest.mark.slow
def test_the_command_measures_each_cell_in_a_process(small_llama, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--json", "-q", "measure", "memory", "--model", f"bf16={small_llama}", "--scale", "0.0625"])
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert (told["unit"], told["scale"], len(told["cells"])) == ("GiB", 0.0625, 3)
    for cell in told["cells"]:
        assert cell["peak_bytes"] > cell["runtime_bytes"] > 50 * 2**20
        assert cell["predicted_bytes"] > cell["runtime_bytes"]
    idle, long_in, _ = told["cells"]
    assert long_in["peak_bytes"] > idle["peak_bytes"]
