"""Tests of the layout that TensorBoard reads from a run's logs."""

import json

from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

from trainer.run_dir import metrics
from trainer.run_dir.metrics_writer import MetricsWriter


def plugin(folder):
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = base_plugin.TBContext(logdir=str(folder), data_provider=provider)
    return CustomScalarsPlugin(context)


def log(folder):
    summaries = MetricsWriter(folder, update=1)
    summaries.write("train", 1, 128, loss=1.0, top1=0.5, batch_size=128)
    summaries.flush()
    summaries.close()


def test_tensorboard_shows_the_schedule_beside_the_curves(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        log(tmp_path / name)
    log(tmp_path / "one")  # A resumed run writes its files again.
    (category,) = json.loads(plugin(tmp_path).layout_impl(RequestContext(), ""))["category"]
    shown = [pattern for chart in category["chart"] for pattern in chart["multiline"]["tag"]]
    assert shown[:3] == ["^top1$", "^loss$", "^schedule/batch_size$"]
    assert len(shown) == len(set(shown))
    assert {pattern.strip("^$") for pattern in shown} <= set(metrics.TAGS.values())
    assert not category.get("closed")
