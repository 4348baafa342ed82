"""Captions as people write them, and descriptions that hit and miss."""

CAPTIONS = {
    "kitchen": [
        "A man in a white shirt is cooking pasta in a small kitchen.",
        "The cook's hands are full of flour.",
        "Someone cooks at a gas-stove, with pots and pans around him.",
    ],
    "beach": [
        "Two dogs are running along the beach.",
        "A black dog chases a brown dog on wet sand!",
        "Dogs play by the sea; one doesn't look back.",
    ],
    "street": [
        "A red double-decker bus stops at the corner of a street.",
        "People wait for a bus in the rain.",
        'A bus with "10 Downing St." on its front, and people with umbrellas.',
    ],
    "cat": ["A cat sleeps on a keyboard.", "The cat is lying on a laptop's keys.", "A sleeping cat, half on a laptop."],
    "snow": [
        "A skier jumps over a mound of snow.",
        "A person on skis in mid-air.",
        "Someone's skiing down a steep hill at 3 p.m.",
    ],
    "plate": ["A plate of rice, beans and 2 eggs.", "Food on a plate.", "Rice and beans with eggs on a white plate."],
}

DESCRIPTIONS = {
    "kitchen": "A man in a white shirt is cooking in a kitchen.",
    "beach": "Two dogs are running along the beach near the sea.",
    "street": "A bus is parked.",
    "cat": "A cat is lying on a laptop.",
    "snow": "The image shows a person in the foreground.",
    "plate": "Rice and beans with eggs on a white plate.",
}
