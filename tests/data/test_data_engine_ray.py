"""A cluster of two machines gives the rows of one process. The cluster is real; its machines are processes."""

import os
from pathlib import Path

import pytest
from engine_jobs import Where
from engine_recipe import small_pieces, write_recipe

from mft.data import build
from mft.data.engine.config import Engine
from mft.errors import DataError, DependencyError, MftError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests" / "data"), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        try:
            yield made.address
        finally:
            made.shutdown()


@pytest.mark.slow
def test_two_nodes_give_the_same_rows_ledger_and_hash(cluster, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path / "project")
    small_pieces(monkeypatch)
    expected = build(recipe)
    built = build(recipe, tmp_path / "out", engine=Engine(engine="ray", ray_address=cluster))
    assert built.facts == expected.facts
    assert built.lists == expected.lists
    assert built.rows == expected.rows


@pytest.mark.slow
def test_the_shards_really_run_on_both_nodes(cluster, tmp_path):
    import ray

    from mft.data.engine.ray_executor import ray_executor

    with ray_executor(cluster) as execute:
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        nodes = {result["node"] for result in execute([Where(tmp_path, number) for number in range(6)])}
    assert len(nodes) == 2


@pytest.mark.slow
def test_a_mistake_on_a_node_is_the_same_error(cluster, tmp_path):
    (tmp_path / "gone.jsonl").write_text('{"text": "x", "prompt": "p", "answer": "a", "question": "q"}\n')
    (tmp_path / "r.yaml").write_text("name: c\ntasks: {t: {sources: [{type: jsonl, path: gone.jsonl}]}}\n")
    with pytest.raises(DataError, match=r"gone\.jsonl:1: the row fits"):
        build(tmp_path / "r.yaml", engine=Engine(engine="ray", ray_address=cluster))


def test_without_ray_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("mft.extras.find_spec", lambda name: None)
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "r.yaml").write_text("name: c\ntasks: {t: {sources: [{type: jsonl, path: a.jsonl}]}}\n")
    with pytest.raises(DependencyError, match=r"the engine ray needs .* pip install 'mft\[scale\]'"):
        build(tmp_path / "r.yaml", engine=Engine(engine="ray"))


@pytest.mark.slow
def test_an_address_where_nothing_answers_is_one_message(tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "r.yaml").write_text("name: c\ntasks: {t: {sources: [{type: jsonl, path: a.jsonl}]}}\n")
    with pytest.raises(MftError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        build(tmp_path / "r.yaml", engine=Engine(engine="ray", ray_address="127.0.0.1:1"))
