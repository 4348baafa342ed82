"""What an index knows of folders, however often, by whomever and after whatever it is brought up to date."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from vision_backends import (
    InvalidImageError,
    InvalidRequestError,
    RateLimitedError,
    SpaceUnavailableError,
    UnavailableError,
)
from vision_backends.search import ImageIndexError, LockedIndexError, OutdatedIndexError
from vision_backends.search.database import Database
from vision_backends.testing import FakeBackend


def asked(backend: FakeBackend) -> int:
    """Return how many images a rung was asked to embed."""
    return sum(call.count for call in backend.calls if call.request.task == "embed")


def finds_itself(index, *paths) -> bool:
    """Return whether each photo is the best hit for itself, so that its row is its own."""
    best = [index.search_like(path, n=1) for path in paths]
    return all(
        hits[0].score > 0.9999 and path in {hits[0].path, *hits[0].copies}
        for path, hits in zip(paths, best, strict=True)
    )


def test_photos_of_all_folders_below_are_found_and_embedded_once(index, backend, photos, make_photo):
    """Whatever is hidden, or no image by its name, is left out."""
    paths = [make_photo("a.png", 1), make_photo("sub/b.JPG", 2), make_photo("sub/deeper/c.webp", 3)]
    for name in ("sub/.hidden.png", ".trash/d.png", "notes.txt"):
        make_photo(name, 4)
    report = index.update(photos)
    assert (report.found, report.new, report.embedded, asked(backend)) == (3, 3, 3, 3)
    assert finds_itself(index, *paths)


def test_a_second_run_reads_only_what_is_new_or_changed(index, backend, photos, make_photo):
    """It embeds nothing that it has a vector of."""
    kept, other = make_photo("kept.png", 1), make_photo("other.png", 2)
    index.update(photos)
    make_photo("other.png", 3)
    new = make_photo("new.png", 4)
    report = index.update(photos)
    assert (report.unchanged, report.changed, report.new, asked(backend)) == (1, 1, 1, 4)
    assert finds_itself(index, kept, other, new)


def test_a_changed_file_is_noticed_though_its_time_and_length_are_as_before(index, photos, make_photo):
    """A program can set the time of a file back; the system notes that it did."""
    path = make_photo("photo.bmp", 1)
    index.update(photos)
    before, data = path.stat(), bytearray(path.read_bytes())
    path.unlink()
    other = make_photo("photo.bmp", 8)
    other.write_bytes(other.read_bytes().ljust(len(data), b"\0")[: max(len(data), other.stat().st_size)])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index.update(photos).changed == 1
    assert finds_itself(index, path)


def test_a_moved_file_keeps_its_vector(index, backend, photos, make_photo):
    """It is known by its content, and found where it is now."""
    path = make_photo("a.png", 1)
    index.update(photos)
    (photos / "elsewhere").mkdir()
    moved = path.rename(photos / "elsewhere" / "b.png")
    report = index.update(photos)
    assert (report.moved, report.new, report.gone, asked(backend)) == (1, 0, 0, 1)
    (hit,) = index.search_like(moved)
    assert (hit.path, hit.copies) == (moved, ())


def test_a_copy_shares_the_vector_and_the_hit(index, backend, photos, make_photo):
    """Ten copies of a photo are one line of the results."""
    path, copy = make_photo("a.png", 1), make_photo("b.png", 1)
    report = index.update(photos)
    assert (report.new, report.embedded, asked(backend)) == (2, 1, 1)
    (hit,) = index.search_like(path)
    assert (hit.path, hit.copies) == (path, (copy,))


def test_what_is_gone_is_no_hit_and_is_forgotten_when_that_is_wanted(index, photos, make_photo):
    """Until then a search says how many better ones it left out."""
    path, kept = make_photo("a.png", 1), make_photo("b.png", 2)
    index.update(photos)
    data = path.read_bytes()
    path.unlink()
    hits = index.search_like(data)
    assert ([hit.path for hit in hits], hits.missing) == ([kept], 1)
    assert (index.update(photos).gone, index.info().files) == (1, 2)
    assert (index.update(photos, prune=True).pruned, index.info().files) == (1, 1)
    assert index.search_like(data).missing == 0


def test_nothing_is_forgotten_of_a_drive_that_is_not_there(index, photos, make_photo):
    """Its folder is empty then."""
    path = make_photo("drive/a.png", 1)
    index.update(photos / "drive")
    path.unlink()
    assert index.update(photos / "drive", prune=True).pruned == 0
    make_photo("drive/other.png", 2)
    assert index.update(photos / "drive", prune=True).pruned == 1


def test_the_vectors_of_forgotten_files_leave_the_disk(index, photos, make_photo):
    """Those that stay are still their own photos'."""
    paths = [make_photo(f"{number}.png", number) for number in range(8)]
    index.update(photos)
    size_bytes = index.info().size_bytes
    for path in paths[:4]:
        path.unlink()
    index.update(photos, prune=True)
    assert list(index.info().vectors.values()) == [4]
    assert index.info().size_bytes < size_bytes
    assert len(list(index.place.glob("vectors-*"))) == 2  # the vectors, and their codes
    assert finds_itself(index, *paths[4:])


def test_a_broken_photo_is_told_and_not_tried_again_until_it_changes(index, backend, photos, make_photo):
    """The others are indexed."""
    make_photo("good.png", 1)
    bad = photos / "bad.jpg"
    bad.write_bytes(b"no image")
    (told,) = index.update(photos).unreadable
    assert (told.path, told.is_known, type(told.error)) == (bad, False, InvalidImageError)
    assert str(bad) in told.error.message
    before = len(backend.calls)
    (again,) = index.update(photos).unreadable
    assert (again.is_known, type(again.error), len(backend.calls)) == (True, InvalidImageError, before)
    assert [each.path for each in index.unreadable()] == [bad]
    make_photo("bad.jpg", 2)
    report = index.update(photos)
    assert (report.unreadable, report.changed) == ([], 1)


def test_a_broken_photo_is_tried_again_when_that_is_wanted(index, photos):
    """An installed decoder may read it now."""
    (photos / "bad.jpg").write_bytes(b"no image")
    index.update(photos)
    (told,) = index.update(photos, retry=True).unreadable
    assert told.is_known is False


def test_a_pipe_and_a_file_that_is_too_long_stop_nothing(make_index, backend, photos, make_photo):
    """The pipe is no file, and the other is told."""
    from vision_backends import ImageLimits, Router
    from vision_backends.search import ImageIndex

    good = make_photo("good.png", 1)
    (photos / "long.png").write_bytes(bytes(5_000))
    os.mkfifo(photos / "pipe.png")
    limits = ImageLimits(max_bytes=4_000)
    with Router([backend], image_limits=limits) as router:
        index = ImageIndex(photos.parent / "index", router=router, limits=limits)
        report = index.update(photos)
        assert [(each.path.name, each.error.kind) for each in report.unreadable] == [("long.png", "image_too_large")]
        assert finds_itself(index, good)


def test_links_in_a_circle_end_and_each_file_is_found_once(index, photos, make_photo):
    """A link to a folder is followed, once."""
    path = make_photo("a.png", 1)
    elsewhere = photos.parent / "elsewhere"
    linked = make_photo("b.png", 2, folder=elsewhere)
    (photos / "loop").symlink_to(photos)
    (photos / "out").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(photos)
    (photos / "same.png").symlink_to(path)
    (photos / "nothing.png").symlink_to(photos / "not there")
    report = index.update(photos)
    assert (report.found, report.new, report.unreadable) == (2, 2, [])
    assert finds_itself(index, path, photos / "out" / linked.name)


def test_a_name_that_is_no_text_is_kept(index, photos, make_photo):
    """Names of files are bytes."""
    odd = make_photo("a.png", 1).rename(photos / os.fsdecode(b"\xff\n.png"))
    index.update(photos)
    (hit,) = index.search_like(odd)
    assert hit.path == odd


def test_it_goes_on_where_it_was_killed(make_index, backend, photos, make_photo, tmp_path):
    """At most the step that was under way is lost."""
    paths = [make_photo(f"{number:03}.png", number) for number in range(150)]
    program = f"""
import os, signal
from vision_backends import Router
from vision_backends.search import ImageIndex
from vision_backends.testing import FakeBackend
index = ImageIndex({str(tmp_path / "index")!r}, router=Router([FakeBackend(batch_size=64)]))
index.update({str(photos)!r}, progress=lambda done, _: done >= 64 and os.kill(os.getpid(), signal.SIGKILL))
"""
    run = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL
    index = make_index(backend)
    report = index.update(photos)
    assert (report.unchanged, report.new, asked(backend)) == (64, 86, 86)
    assert finds_itself(index, *paths[::7])


@pytest.mark.parametrize("left", [b"\x01" * 32, b"\x01" * 1_000, b"\x01" * 13])
def test_rows_that_a_killed_process_left_are_no_rows(index, photos, make_photo, left):
    """It had written vectors that the database did not count yet, and the last of them in part."""
    paths = [make_photo("a.png", 1), make_photo("b.png", 2)]
    index.update(photos)
    (file,) = index.place.glob("vectors-*.f32")
    with file.open("ab") as end:
        end.write(left)
    (index.place / "vectors-00000000.f32").write_bytes(b"begun")
    assert finds_itself(index, *paths)
    paths += [make_photo("c.png", 3)]
    index.update(photos)
    assert finds_itself(index, *paths)
    assert set(index.place.glob("vectors-*")) == {file, file.with_suffix(".i8")}


def test_a_step_that_fails_is_not_written_in_part(index, make_index, photos, make_photo):
    """Nothing of it can be embedded: what was there before stays, and the next run makes up for it."""
    first = make_photo("a.png", 1)
    index.update(photos)
    second = make_photo("b.png", 2)
    dead = FakeBackend(not_ready=UnavailableError("The line is dead."))
    with pytest.raises(SpaceUnavailableError):
        make_index(dead).update(photos)
    assert index.info().files == 1
    assert index.update(photos).new == 1
    assert finds_itself(index, first, second)


def test_one_writes_and_any_number_search_meanwhile(index, make_index, backend, photos, make_photo):
    """The second writer is told at once."""
    path = make_photo("a.png", 1)
    index.update(photos)
    other = make_index(backend)
    with Database(index.place).writing(), pytest.raises(LockedIndexError, match="writing"):
        other.update(photos)
    make_photo("b.png", 2)
    seen = []
    index.update(photos, progress=lambda *_: seen.append(len(other.search_like(path))))
    assert seen[0] == 1


def test_a_folder_that_is_none_is_refused_before_anything_is_written(index, photos, make_photo):
    """So no index begins with a typing error."""
    for wrong in (photos / "not there", make_photo("a.png", 1), 5):
        with pytest.raises(InvalidRequestError):
            index.update(wrong)
    with pytest.raises(InvalidRequestError):
        index.update()
    assert not index.place.exists()


@dataclass
class TwoSpaces:
    """The names of the spaces of a rung with one for photos and one for words as well."""

    images: str = "two/images@1"
    joint: str = "two/joint@1"


class TwoSpaceBackend(FakeBackend):
    """Embeds photos in one space and, where that is asked for, in the one of its texts."""

    def __init__(self, spaces: TwoSpaces) -> None:
        super().__init__("two", batch_size=64)
        self.names = spaces

    def spaces(self, request):
        """Return both for photos, the usual one first."""
        return (self.names.joint,) if request.task == "embed_text" else (self.names.images, self.names.joint)

    def model_for(self, request):
        """Return the model, whose space is the one that is asked for if it has that."""
        own = self.names.joint if request.task == "embed_text" else self.names.images
        wanted = getattr(request, "space", None)
        self._space = wanted if wanted in (self.names.images, self.names.joint) else own
        return super().model_for(request)

    def embed(self, images, request, *, timeout_s):
        """Embed in the space that was asked for."""
        self.model_for(request)
        return super().embed(images, request, timeout_s=timeout_s)

    def embed_text(self, texts, request, *, timeout_s):
        """Embed in the joint space."""
        self.model_for(request)
        return super().embed_text(texts, request, timeout_s=timeout_s)


def test_photos_get_a_vector_in_the_space_of_words_and_one_in_that_of_photos(make_index, photos, make_photo):
    """Each search uses its own."""
    backend = TwoSpaceBackend(TwoSpaces())
    index = make_index(backend)
    path = make_photo("a.png", 1)
    report = index.update(photos)
    assert (report.embedded, report.vectors) == (1, 2)
    assert report.spaces == {"like": "two/images@1", "words": "two/joint@1"}
    assert index.search("a dog").space == "two/joint@1"
    assert index.search_like(path).space == "two/images@1"


def test_a_photo_is_opened_once_for_all_spaces(make_index, photos, make_photo):
    """Both spaces are asked about the very same open image."""
    backend = TwoSpaceBackend(TwoSpaces())
    seen = []
    backend.embed = lambda images, request, *, timeout_s: (
        seen.append(images) or TwoSpaceBackend.embed(backend, images, request, timeout_s=timeout_s)
    )
    for seed in range(3):
        make_photo(f"{seed}.png", seed)
    make_index(backend).update(photos)
    one, other = ({image.digest: image for image in images} for images in seen)
    assert one.keys() == other.keys()
    assert all(one[digest] is other[digest] for digest in one)


def test_photos_that_were_embedded_for_one_purpose_get_the_vectors_of_the_other(make_index, photos, make_photo):
    """Only those."""
    backend = TwoSpaceBackend(TwoSpaces())
    index = make_index(backend)
    make_photo("a.png", 1)
    index.update(photos, purposes=("like",))
    report = index.update(photos)
    assert (report.vectors, asked(backend)) == (1, 2)


def test_after_an_upgrade_of_the_model_the_index_is_refused_until_it_is_made_anew(make_index, photos, make_photo):
    """The error names the command."""
    spaces = TwoSpaces()
    index = make_index(TwoSpaceBackend(spaces))
    path = make_photo("a.png", 1)
    index.update(photos)
    spaces.joint = "two/joint@2"
    for ask in (lambda: index.update(photos), lambda: index.search("a dog")):
        with pytest.raises(OutdatedIndexError, match=r"two/joint@1.*two/joint@2.*vision index --rebuild"):
            ask()
    assert index.update(photos, rebuild=True).vectors == 2
    assert len(index.search("a dog")) == len(index.search_like(path)) == 1


def test_another_backend_than_the_index_was_made_with_is_refused(make_index, backend, photos, make_photo):
    """Unless all vectors are made anew."""
    make_photo("a.png", 1)
    other = FakeBackend("other", space="other/vectors@1")
    make_index(backend, other, backend="fake").update(photos)
    index = make_index(backend, other, backend="other")
    with pytest.raises(ImageIndexError, match="fake"):
        index.update(photos)
    assert index.update(photos, rebuild=True).spaces["like"] == "other/vectors@1"
    assert index.info().backend == "other"


def test_no_photo_leaves_the_machine_unless_the_backend_was_named(make_index, photos, make_photo):
    """The lowest rung that stays here makes the vectors of a new index."""
    make_photo("a.png", 1)
    server = FakeBackend("server", local=False, space="server/vectors@1")
    index = make_index(server, FakeBackend("here"))
    index.update(photos)
    assert (index.info().backend, server.calls) == ("here", [])
    with pytest.raises(ImageIndexError, match="--backend server"):
        make_index(server, place=photos.parent / "second").update(photos)


def test_a_server_that_asks_for_a_pause_gets_it(make_index, photos, make_photo):
    """There is nobody to fall back to, and no hurry."""
    for number in range(4):
        make_photo(f"{number}.png", number)
    server = FakeBackend("server", local=False, batch_size=4)
    server.play(RateLimitedError("Later.", retry_after_s=3.0))
    report = make_index(server, backend="server").update(photos)
    assert (report.new, report.unreadable) == (4, [])


def test_what_the_vectors_cost_is_added_up(make_index, photos, make_photo):
    """A server's price is what its answers say."""
    from vision_backends import Usage

    make_photo("a.png", 1)
    make_photo("b.png", 2)
    paid = FakeBackend("paid", local=False, usage=Usage(input_tokens=1, output_tokens=0, cost_usd=0.25))
    assert make_index(paid, backend="paid").update(photos).cost_usd == 0.5
