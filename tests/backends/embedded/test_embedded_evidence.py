"""The classifier corrects, confirms or doubts what the detector found, and colours get the names people give them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from vision_backends.backends.embedded.evidence import Observer, Palette, to_oklab
from vision_backends.backends.embedded.label_knowledge import read_sorts
from vision_backends.backends.model_cards import asset
from vision_backends.types import Detection

NAMES = asset("imagenet-1k.txt").read_text(encoding="utf-8").splitlines()
SORTS = read_sorts(asset("imagenet-sorts.tsv").read_text(encoding="utf-8"))
PALETTE = Palette()
NOTHING = np.full(1000, 0.001, dtype=np.float32)


def view(**shares):
    """Probabilities of the classes named (spaces as underscores); what is left goes to all others alike."""
    probabilities = np.full(1000, (1 - sum(shares.values())) / (1000 - len(shares)), dtype=np.float32)
    for name, share in shares.items():
        probabilities[NAMES.index(name.replace("_", " "))] = share
    return probabilities


class StubDetector:
    """Finds what it is told to."""

    def __init__(self, *found):
        self.found = list(found)

    def detect(self, image, *, width, height, min_score):
        """Return what it was made with."""
        return [item for item in self.found if item.score >= min_score]


class StubClassifier:
    """Sees one thing in the whole image and its centre, and others in the crops, in order."""

    def __init__(self, scene, *crops, centre=None):
        self.views = [scene, scene if centre is None else centre]
        self.crops = iter(crops)
        self.checked = []
        self.overviews = []

    def classify(self, image, *, box):
        """Return the view of a picture, and remember its size and the box; the thread tells what is looked at."""
        if threading.current_thread().name == "vision-overview":
            self.overviews.append((image.size, box))
            return self.views[len(self.overviews) - 1]
        self.checked.append((image.size, box))
        return next(self.crops)


def box(label, *, score=0.7, xyxy=(10.0, 10.0, 40.0, 40.0)):
    """A detection in an image of 200 × 100 px."""
    return Detection(label=label, score=score, xyxy=xyxy)


def observe(*found, scene=NOTHING, crops=(), centre=None):
    """The evidence about an image of 200 × 100 px."""
    classifier = StubClassifier(scene, *crops, centre=centre)
    observer = Observer(StubDetector(*found), classifier=classifier, names=NAMES, sorts=SORTS)
    return observer.observe(Image.new("RGB", (100, 50), "teal"), width=200, height=100)


@pytest.mark.parametrize(
    ("detected", "score", "crop", "label", "sure"),
    [
        ("cat", 0.58, view(lion=0.8), "lion", True),
        ("cat", 0.58, view(lion=0.3), "cat", False),
        ("cat", 0.55, view(Egyptian_Mau=0.8), "cat", True),
        ("cat", 0.55, view(tabby_cat=0.2, tiger_cat=0.2), "cat", True),
        ("cat", 0.60, view(badger=0.3, hare=0.3), "animal", True),
        ("cat", 0.60, NOTHING, "cat", False),
        ("cat", 0.70, NOTHING, "cat", True),
        ("dog", 0.55, view(Golden_Retriever=0.9), "Golden Retriever", True),
        ("dog", 0.55, view(Golden_Retriever=0.5, Vizsla=0.2), "dog", True),
        ("bird", 0.55, view(bald_eagle=0.75), "bald eagle", True),
        ("horse", 0.55, view(zebra=0.9), "zebra", True),
        ("truck", 0.55, view(fire_truck=0.9), "fire truck", True),
        ("truck", 0.55, view(fire_truck=0.5), "truck", False),
        ("truck", 0.70, view(espresso=0.9), "truck", True),
    ],
)
def test_the_classifier_checks_what_it_knows(detected, score, crop, label, sure):
    """It corrects animals, refines vehicles, confirms kinds, and leaves the rest to the detector's score."""
    (item,) = observe(box(detected, score=score), crops=[crop]).objects
    assert (item.label, item.sure, item.detected_as) == (label, sure, detected)


@pytest.mark.parametrize(("score", "sure"), [(0.59, False), (0.61, True)])
def test_other_objects_are_sure_by_their_score(score, sure):
    """Nobody checks a person: a crop of one may be full of clothes."""
    (item,) = observe(box("person", score=score)).objects
    assert (item.label, item.sure) == ("person", sure)


def test_crops_are_in_pixels_of_the_decoded_image():
    """Boxes refer to the full image; the crop is taken from what was decoded, here half of it."""
    classifier = StubClassifier(NOTHING, NOTHING)
    observer = Observer(StubDetector(box("cat")), classifier=classifier, names=NAMES, sorts=SORTS)
    observer.observe(Image.new("RGB", (100, 50)), width=200, height=100)
    assert classifier.overviews[0] == ((100, 50), (0, 0, 100, 50))
    assert classifier.checked == [((100, 50), (5, 5, 20, 20))]


def test_the_whole_image_is_looked_at_while_objects_are_searched():
    """On two processors neither has to wait for the other."""
    looked = threading.Event()

    class Detector(StubDetector):
        def detect(self, image, *, width, height, min_score):
            assert looked.wait(30)
            return super().detect(image, width=width, height=height, min_score=min_score)

    class Classifier(StubClassifier):
        def classify(self, image, *, box):
            looked.set()
            return super().classify(image, box=box)

    observer = Observer(Detector(box("person")), classifier=Classifier(NOTHING), names=NAMES, sorts=SORTS)
    assert observer.observe(Image.new("RGB", (100, 50)), width=200, height=100).objects


def test_objects_are_checked_while_the_whole_image_is_still_looked_at():
    """What was found is known long before everything else is."""
    checked = threading.Event()

    class Classifier(StubClassifier):
        def classify(self, image, *, box):
            if threading.current_thread().name == "vision-overview":
                assert checked.wait(30)
            else:
                checked.set()
            return super().classify(image, box=box)

    observer = Observer(StubDetector(box("cat")), classifier=Classifier(NOTHING, NOTHING), names=NAMES, sorts=SORTS)
    assert observer.observe(Image.new("RGB", (100, 50)), width=200, height=100).objects


def test_an_image_can_be_looked_at_in_one_thread():
    """Where all processors have other images; the evidence is the same."""
    threads = set()

    class Classifier(StubClassifier):
        def classify(self, image, *, box):
            threads.add(threading.get_ident())
            return NOTHING

    observer = Observer(StubDetector(box("cat")), classifier=Classifier(NOTHING), names=NAMES, sorts=SORTS)
    picture = Image.new("RGB", (100, 50))
    alone = observer.observe(picture, width=200, height=100, at_once=False)
    assert threads == {threading.get_ident()}
    assert alone == observer.observe(picture, width=200, height=100)
    assert len(threads) == 2


def test_a_large_image_is_scaled_once_for_all_that_is_no_small_part_of_it():
    """Detector and classifier see few pixels; what is small is looked at in all that there are."""
    looked = []

    class Detector(StubDetector):
        def detect(self, image, *, width, height, min_score):
            looked.append((image.size, width, height))
            return super().detect(image, width=width, height=height, min_score=min_score)

    large, little = (0.0, 0.0, 1600.0, 1600.0), (400.0, 800.0, 1000.0, 1600.0)
    classifier = StubClassifier(NOTHING, NOTHING, NOTHING)
    detector = Detector(box("cat", xyxy=large), box("dog", xyxy=little))
    observer = Observer(detector, classifier=classifier, names=NAMES, sorts=SORTS)
    observer.observe(Image.new("RGB", (1200, 900)), width=2400, height=1800)
    assert looked == [((600, 450), 2400, 1800)]
    assert classifier.overviews[0] == ((600, 450), (0, 0, 600, 450))
    assert classifier.checked == [((600, 450), (0, 0, 400, 400)), ((1200, 900), (200, 400, 500, 800))]


def test_only_the_largest_three_are_checked():
    """A field full of sheep costs no more than three sheep."""
    flock = [box("sheep", xyxy=(10.0 * n, 0.0, 10.0 * n + n + 1, 50.0)) for n in range(10)]
    classifier = StubClassifier(NOTHING, *[NOTHING] * 3)
    observer = Observer(StubDetector(*flock), classifier=classifier, names=NAMES, sorts=SORTS)
    assert len(observer.observe(Image.new("RGB", (200, 100)), width=200, height=100).objects) == 10
    assert len(classifier.checked) == 3


@pytest.mark.parametrize(
    ("xyxy", "place"),
    [
        ((0.0, 0.0, 40.0, 100.0), "left"),
        ((80.0, 0.0, 120.0, 50.0), "centre"),
        ((160.0, 0.0, 200.0, 50.0), "right"),
        ((0.0, 0.0, 80.0, 100.0), "foreground"),
    ],
)
def test_places_follow_the_box(xyxy, place):
    """Thirds of the width, unless it fills more than a third of the area."""
    (item,) = observe(box("person", xyxy=xyxy)).objects
    assert item.place == place


@pytest.mark.parametrize(
    ("scene", "label", "sure"),
    [
        (view(espresso=0.9), "espresso", True),
        (view(espresso=0.7), "espresso", False),
        (view(espresso=0.5), "food", False),
        (view(tripod=0.5), None, None),
        (view(palace=0.4, church=0.4), "building", False),
        (view(palace=0.3, church=0.32), "building", False),
        (view(palace=0.3, church=0.28), "building or other structure", False),
        (view(palace=0.15, church=0.15), None, None),
        (view(bald_eagle=0.3, kite=0.32), "bird of prey", False),
        (view(bald_eagle=0.2, ostrich=0.3), "bird", False),
        (view(Beagle=0.3, Basset_Hound=0.28), "animal", False),
        (view(Beagle=0.2, Basset_Hound=0.2), None, None),
        (view(daisy=0.3, rapeseed=0.2), "plant", False),
        (view(valley=0.3, cliff=0.2), "landscape", False),
        (view(rocking_chair=0.4, desk=0.3), "furniture", False),
        (view(burrito=0.35, pizza=0.3), "food", False),
        (view(strawberry=0.4, lemon=0.4), "fruit", False),
        (view(comic_book=0.26), "drawing", False),
        (view(comic_book=0.9), "drawing", False),
        (view(badger=0.3, hare=0.3, goldfish=0.3), "animal", False),
        (view(bridegroom=0.95), None, None),
        (NOTHING, None, None),
    ],
)
def test_a_scene_needs_a_clear_word(scene, label, sure):
    """One class that is clear, or one sort of classes; never a word that says who somebody is."""
    found = observe(scene=scene).scene
    assert (found and found.label, found and found.sure) == (label, sure)


@pytest.mark.parametrize(
    ("whole", "centre", "label"),
    [
        (view(desk=0.6), view(bookcase=0.5), "furniture"),
        (view(desk=0.95), view(bookcase=0.2), None),
        (view(Beagle=0.95), view(Basset_Hound=0.3), "animal"),
    ],
)
def test_a_sort_is_seen_in_the_whole_and_in_its_centre(whole, centre, label):
    """One look that is sure does not make up for another that is not; a narrow sort needs more of each."""
    scene = observe(scene=whole, centre=centre).scene
    assert (scene and scene.label) == label


@pytest.mark.parametrize(
    ("score", "scene", "label"),
    [
        (0.35, view(tabby_cat=0.2, tiger_cat=0.15), "cat"),
        (0.35, view(park_bench=0.5), None),
        (0.29, view(tabby_cat=0.2, tiger_cat=0.15), None),
        (0.35, view(tabby_cat=0.1, tiger_cat=0.1), None),
        (0.45, view(espresso=0.7), None),
        (0.45, view(tabby_cat=0.4, tiger_cat=0.3), None),
    ],
)
def test_what_detector_and_classifier_both_half_see_may_be_there(score, scene, label):
    """Neither would be believed alone; it is never sure, and a clear word for the whole goes before it."""
    objects = observe(box("cat", score=score), scene=scene).objects
    assert [(item.label, item.sure) for item in objects] == ([(label, False)] if label else [])


def test_of_what_is_half_seen_only_the_likeliest_is_said():
    """Counts of what is not sure are worth nothing."""
    weak = [box("bench", score=0.45), box("cat", score=0.4), box("cat", score=0.35), box("person", score=0.49)]
    scene = view(tabby_cat=0.25, tiger_cat=0.2, park_bench=0.26)
    assert [item.score for item in observe(*weak, scene=scene).objects] == [0.4]


def test_what_is_half_seen_goes_before_a_sort_that_says_less():
    """A cat is more than an animal; a bird is no more than a bird, which is then probable."""
    cat = observe(box("cat", score=0.4), scene=view(tabby_cat=0.3, lynx=0.2))
    assert ([item.label for item in cat.objects], cat.scene) == (["cat"], None)
    bird = observe(box("bird", score=0.4), scene=view(ostrich=0.3, bald_eagle=0.2))
    assert (bird.objects, bird.scene and bird.scene.label) == ((), "bird")


def test_what_is_half_seen_is_left_out_beside_an_object():
    """What was found for sure makes the description; a guess would only add doubt to it."""
    found = observe(box("person"), box("bench", score=0.45), scene=view(park_bench=0.5))
    assert [item.label for item in found.objects] == ["person"]


@pytest.mark.parametrize(
    ("detected", "scene"),
    [
        ("cat", view(lion=0.9)),
        ("bus", view(school_bus=0.9)),
        ("motorcycle", view(moped=0.4, motor_scooter=0.4)),
        ("umbrella", view(umbrella=0.9)),
        ("laptop", view(laptop_computer=0.9)),
        ("giraffe", view(gazelle=0.4, hartebeest=0.4)),
        ("sandwich", view(burrito=0.5, pizza=0.3)),
        ("bed", view(wardrobe=0.4, desk=0.4)),
    ],
)
def test_a_scene_does_not_repeat_an_object(detected, scene):
    """What an object says already, the scene leaves out."""
    assert observe(box(detected), scene=scene, crops=[NOTHING]).scene is None


def test_objects_are_ordered_by_prominence():
    """Large and sure comes before small or doubtful."""
    small, large = box("person", score=0.9), box("chair", score=0.7, xyxy=(0.0, 0.0, 100.0, 90.0))
    assert [item.label for item in observe(small, large, crops=[NOTHING]).objects] == ["chair", "person"]


def test_evidence_is_json_able():
    """Every fact is in the dictionary that goes with a description."""
    import json

    facts = observe(box("cat"), scene=view(tripod=0.9), crops=[NOTHING]).to_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["objects"][0]["label"] == "cat"
    assert facts["scene"]["label"] == "tripod"
    assert facts["colours"]["main"] == ["turquoise"]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((24, 24, 26), "black"),
        ((70, 70, 74), "grey"),
        ((128, 128, 128), "grey"),
        ((128, 126, 122), "grey"),
        ((200, 198, 196), "grey"),
        ((255, 255, 255), "white"),
        ((250, 245, 238), "white"),
        ((255, 0, 0), "red"),
        ((128, 0, 0), "red"),
        ((255, 140, 0), "orange"),
        ((255, 255, 0), "yellow"),
        ((0, 255, 0), "green"),
        ((34, 139, 34), "green"),
        ((128, 128, 0), "green"),
        ((0, 128, 128), "turquoise"),
        ((64, 224, 208), "turquoise"),
        ((0, 0, 255), "blue"),
        ((0, 0, 128), "dark blue"),
        ((135, 206, 235), "light blue"),
        ((75, 0, 130), "purple"),
        ((255, 192, 203), "pink"),
        ((255, 0, 255), "pink"),
        ((139, 69, 19), "brown"),
        ((210, 180, 140), "beige"),
        ((245, 245, 220), "beige"),
    ],
)
def test_plain_colours_have_their_plain_names(rgb, name):
    """Named colours of the web and near-greys are called what they are."""
    assert PALETTE.tones(Image.new("RGB", (8, 8), rgb)).main == (name,)


@pytest.mark.parametrize("skin", ["ffdbac", "f1c9a5", "e0ac8a", "c68d6a", "8d5a3c", "5a3825"])
def test_skin_is_beige_or_brown(skin):
    """Skin is neither pink nor orange, whoever's it is."""
    (name,) = PALETTE.tones(Image.new("RGB", (8, 8), f"#{skin}")).main
    assert name in {"beige", "brown"}


def test_oklab_of_known_colours():
    """White has lightness 1 and no colour; red is the value published with the formula."""
    white, red = to_oklab(np.array([[255, 255, 255], [255, 0, 0]], dtype=np.uint8))
    assert white == pytest.approx([1, 0, 0], abs=1e-3)
    assert red == pytest.approx([0.628, 0.225, 0.126], abs=1e-3)


def halves(left, right):
    """An image of two colours."""
    image = Image.new("RGB", (100, 80), left)
    image.paste(right, (60, 0, 100, 80))
    return image


def test_the_most_frequent_colour_comes_first():
    """Sixty per cent of blue beat forty of green."""
    assert PALETTE.tones(halves("#1f5fc8", "#2e8b2e")).main == ("blue", "green")


def test_a_vivid_colour_counts_for_more_than_grey():
    """Forty per cent of orange beat sixty of grey, as they do to the eye."""
    assert PALETTE.tones(halves("grey", "#f07818")).main == ("orange", "grey")


@pytest.mark.parametrize(
    ("image", "uniform", "greyscale", "brightness"),
    [
        (Image.new("RGB", (1, 1), "black"), True, True, "dark"),
        (Image.new("RGB", (900, 3), "white"), True, True, "bright"),
        (Image.new("RGB", (30, 30), "red"), True, False, "normal"),
        (halves("black", "white"), False, True, "dark"),
        (halves("#777777", "#7f7c78"), True, True, "normal"),
        (halves("white", "red"), False, False, "bright"),
    ],
)
def test_uniform_greyscale_and_brightness(image, uniform, greyscale, brightness):
    """Each is judged by itself, for images of any shape."""
    tones = PALETTE.tones(image)
    assert (tones.uniform, tones.greyscale, tones.brightness) == (uniform, greyscale, brightness)


def test_a_photo_in_grey_is_greyscale_and_its_colour_print_is_not(photos):
    """The photographer is black and white; the astronaut is not."""
    grey, coloured = (PALETTE.tones(Image.open(photos[name]).convert("RGB")) for name in ("photographer", "astronaut"))
    assert grey.greyscale
    assert not coloured.greyscale
