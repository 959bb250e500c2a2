"""Who a guest is: a random id, a temporary name and colour, and whether they may come in."""

import datetime
import secrets

import msgspec

from visavis.contract import RULES_VERSION, CreateGuest, Profile, Refused


class Guest(msgspec.Struct, frozen=True):
    """A guest as the server knows one: `device` stays the same for a browser, so that blocks last."""

    id: str
    device: str
    profile: Profile


def new_id() -> str:
    """128 random bits, base64url, 22 characters."""
    return secrets.token_urlsafe(16)


_FIRST = (
    "Amber", "Autumn", "Birch", "Bright", "Calm", "Cedar", "Clever", "Cloud", "Clover", "Copper", "Coral", "Dapper",
    "Dawn", "Ember", "Fern", "Gentle", "Golden", "Hazel", "Honey", "Indigo", "Ivory", "Jade", "Jolly", "Kind",
    "Lemon", "Lilac", "Lively", "Lunar", "Maple", "Mellow", "Merry", "Misty", "Morning", "Noble", "Ocean", "Olive",
    "Pearl", "Pepper", "Plum", "Quiet", "Rain", "River", "Rosy", "Russet", "Saffron", "Sage", "Silver", "Snow",
    "Solar", "Spring", "Starry", "Summer", "Sunny", "Swift", "Tidal", "Topaz", "Velvet", "Violet", "Warm", "Wild",
    "Willow", "Winter", "Witty", "Zesty",
)  # fmt: skip
_SECOND = (
    "Badger", "Bear", "Bee", "Bison", "Cat", "Crane", "Cricket", "Deer", "Dolphin", "Dove", "Dragonfly", "Eagle",
    "Falcon", "Ferret", "Finch", "Firefly", "Fox", "Gazelle", "Gecko", "Goose", "Hare", "Hawk", "Hedgehog", "Heron",
    "Ibis", "Jackdaw", "Kestrel", "Kingfisher", "Koala", "Lark", "Lynx", "Magpie", "Marten", "Mole", "Moth", "Newt",
    "Nightingale", "Orca", "Oriole", "Otter", "Owl", "Panda", "Penguin", "Puffin", "Quail", "Rabbit", "Raven", "Robin",
    "Salmon", "Seal", "Sparrow", "Squirrel", "Starling", "Stork", "Swallow", "Swan", "Tern", "Thrush", "Tiger",
    "Turtle", "Vole", "Walrus", "Whale", "Wren",
)  # fmt: skip


def new_profile() -> Profile:
    """A friendly name out of 4,096 and one of 24 hues, 15 degrees apart."""
    return Profile(
        name=f"{secrets.choice(_FIRST)} {secrets.choice(_SECOND)}",
        hue=secrets.randbelow(24) * 15,
    )


def age_on(birth: datetime.date, today: datetime.date) -> int:
    """Full years between two days; someone born on 29 February has a birthday on 1 March in common years."""
    return today.year - birth.year - ((today.month, today.day) < (birth.month, birth.day))


def check_entry(
    asked: CreateGuest, *, known_adult: bool, known_rules: int, minimum_age: int, today: datetime.date
) -> None:
    """Whether someone may come in, by their answers or by those the browser is remembered for.

    Raises Refused: birth_date_needed, under_age, rules_not_accepted, bad_request (no such day).
    """
    if asked.birth_date is not None:
        try:
            birth = datetime.date.fromisoformat(asked.birth_date)
        except ValueError:
            raise Refused("bad_request", field="birthDate") from None
        if birth > today or age_on(birth, today) > 130:
            raise Refused("bad_request", field="birthDate")
        if age_on(birth, today) < minimum_age:
            raise Refused("under_age", minimumAge=minimum_age)
    elif not known_adult and minimum_age > 0:
        raise Refused("birth_date_needed", minimumAge=minimum_age)
    if max(asked.rules or 0, known_rules) < RULES_VERSION:
        raise Refused("rules_not_accepted", rules=RULES_VERSION)
