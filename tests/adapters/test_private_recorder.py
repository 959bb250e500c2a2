"""The recorder of a single machine, as a child of the worker."""

import os
from pathlib import Path

import pytest

from rig import ROOT
from visavis.adapters.private_recorder import PrivateRecorder, RecorderFailed
from visavis.adapters.redis import Recorders, connect
from visavis.adapters.valkey import PrivateValkey


@pytest.fixture
def environment(tmp_path: Path, valkey: PrivateValkey) -> dict[str, str]:
    """As the worker passes it on. No relay is asked for anything before there is an offer."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("VISAVIS_")},
        "PYTHONPATH": str(ROOT / "backend"),
        "VISAVIS_DATA_DIR": str(tmp_path),
        "REDIS_URL": valkey.url,
        "VISAVIS_TURN_URLS": "turn:127.0.0.1:9",
        "VISAVIS_TURN_SECRETS": "secret",
    }


async def test_it_is_found_while_it_runs(environment: dict[str, str], valkey: PrivateValkey, tmp_path: Path) -> None:
    """From when it is ready until it is stopped; its folder is for nobody else."""
    client = connect(valkey.url)
    recorders = Recorders(client)
    before = set(await recorders.loads())
    recorder = PrivateRecorder(environment)
    await recorder.start()
    assert len(set(await recorders.loads()) - before) == 1
    assert (tmp_path / "recordings").stat().st_mode & 0o777 == 0o700
    await recorder.stop()
    assert set(await recorders.loads()) <= before
    assert not Path(f"/proc/{recorder.pid}/exe").exists()
    await client.aclose()


@pytest.mark.parametrize("lacking", ["VISAVIS_TURN_URLS", "VISAVIS_TURN_SECRETS", "REDIS_URL"])
async def test_one_that_cannot_record_says_so_at_the_start(
    environment: dict[str, str], lacking: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a relay it could reach nobody, without Redis nobody could reach it."""
    del environment[lacking]
    with pytest.raises(RecorderFailed):
        await PrivateRecorder(environment).start()
    assert lacking in capfd.readouterr().err
