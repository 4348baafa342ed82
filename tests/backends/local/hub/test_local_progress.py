"""Progress is said in megabytes, and counts every byte of a file once."""

from __future__ import annotations

from types import SimpleNamespace

from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

from vision_backends.backends.local.hub.progress import Progress, meter


def test_what_is_written_counts_after_what_is_there():
    """A server that begins anew takes back what it has sent."""
    progress = Progress(stage="being fetched", done_bytes=5_000_000, total_bytes=20_000_000)
    with meter(progress, file_bytes=10_000_000)(total=10_000_000, initial=0, desc="model.safetensors") as bar:
        for count in (6_000_000, -6_000_000, 10_000_000):
            bar.update(count)
            bar.update_transfer(count)
    assert str(progress) == "being fetched: 15 of 20 MB, 75%"


def test_what_xet_has_received_counts_though_it_is_not_written_yet():
    """That may be more than the file has, and is still one file."""
    progress = Progress(total_bytes=100)
    bars = meter(progress, file_bytes=100)
    reporter = XetDownloadProgressReporter(reconstruction_desc="", total=100, log_level=0, tqdm_class=bars)
    rates = {"total_bytes_completion_rate": 1.0, "total_transfer_bytes_completion_rate": 1.0, "total_bytes": 100}
    seen = []
    with reporter:
        for written, received in ((0, 30), (40, 50), (100, 110)):
            counts = {"total_bytes_completed": written, "total_transfer_bytes_completed": received}
            reporter.update_progress(SimpleNamespace(**counts, **rates))
            seen.append(progress.done_bytes)
    assert seen == [30, 50, 100]
