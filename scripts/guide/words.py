"""Word lists and made-up values for tools and JSON."""

from __future__ import annotations

import random

from scripts.guide.outside import LISTS, wild

VERBS = (
    "get fetch find show check read list count open close start stop book cancel order send set change update"
    " create add remove delete rename move copy print plan compare convert compute estimate measure track"
    " schedule reserve rent buy sell pay transfer translate summarise search locate lock unlock turn switch"
    " play pause record watch call invite assign approve reject report export import upload download archive"
    " restore verify scan sort rank rate review publish notify remind water feed clean heat cool paint pack"
    " ship return refill inspect calibrate reset enable disable query calculate charge mute raise lower"
    " submit request renew log draw weigh lookup ask tell give ring store load save repair mark"
).split()
ADJECTIVES = (
    "daily weekly monthly yearly local public private new old open next last current average total main north south"
    " east west red blue green upper lower spare first second hourly annual internal external shared fresh frozen"
    " late early free busy full empty secret regional national electric digital paper wooden steel"
).split()
NOUNS = (
    "weather forecast temperature humidity wind rain stock price quote invoice order customer account balance"
    " ticket train flight hotel room table seat meeting calendar appointment reminder alarm timer note task"
    " email message letter parcel package shipment delivery address phone contact employee salary holiday"
    " project budget report chart file folder document photo video song playlist album radio lamp light heater"
    " window door gate garage garden lawn pump tank valve motor engine battery charger sensor robot drone camera"
    " printer scanner screen router server database table backup ticket bug release branch commit test"
    " recipe menu meal dinner lunch breakfast pizza coffee tea wine bread cheese fruit apple banana"
    " book library author chapter page word dictionary translation currency rate tax loan mortgage insurance"
    " policy claim patient doctor nurse clinic medicine dose allergy heartbeat sleep step run workout gym"
    " football match score team player league race car bike bus taxi tram ferry ship port bridge road traffic"
    " parking fuel station map route distance museum concert theatre movie cinema festival park zoo beach"
    " pool lake river mountain snow ski tide moon star planet eclipse sunrise sunset earthquake storm"
    " school course lesson exam grade student teacher class homework plant tree flower seed cow horse"
    " dog cat fish bird hive honey farm field harvest tractor silo warehouse shelf box crate pallet crane"
    " truck container customs visa passport embassy court contract signature key badge visitor guest elevator"
    " floor office desk chair kitchen oven fridge dishwasher laundry vacuum mop bin glass paper"
    " shop coupon discount basket cart refund review rating survey vote election law permit fine"
    " gold silver bitcoin wallet payment bank card pin receipt donation auction bid horoscope joke fact"
    " poem name color shape size weight length height volume area speed voltage current pressure level"
    " stockroom inventory vault locker turbine furnace kiln boiler chimney cellar attic balcony terrace"
).split()
UNITS = "percent degrees metres kilos hours minutes days litres euros dollars grams watts points pages".split()
NAMES = (
    "Anna Ben Carla David Eva Felix Greta Hugo Ines Jonas Karin Leo Maria Nils Olga Paul Rosa Sven Tina Uwe"
    " Vera Willem Yara Zoe Amir Bo Chen Dina Emeka Fatima Goran Hana Ivan Jin Kofi Lena Mira Noor Otto Priya"
).split()
PLAIN = (
    "about above again alarm amber angle arrow basil beach berry blade board brave brick brown candle canyon"
    " carpet castle cedar cherry circle cloud cobalt copper coral cotton crane crystal delta desert diamond"
    " dragon eagle ember falcon fancy feather fern field flame forest fossil frost galaxy garden ginger glacier"
    " granite harbor hazel helmet honey horizon island ivory jacket jasper jungle kernel ladder lagoon lantern"
    " lemon lilac linen lotus magnet maple marble meadow mirror mosaic nectar needle nickel noble ocean olive"
    " onyx orange orchid oyster paddle panther pearl pebble pepper pine planet plum pocket prairie quartz"
    " rabbit raven ribbon ridge rocket saddle saffron sail salmon sand shadow shell silk slate smoke spark"
    " spruce stone summer sunset table temple thunder timber topaz tulip tunnel turtle valley velvet violet"
    " walnut water willow window winter yellow zebra"
).split()


def cities() -> list[str]:
    return [word.capitalize() for word in LISTS["city"].split()]


def proper(rng: random.Random) -> str:
    """A name of a place or person, known or made up."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(cities())
    if kind < 0.55:
        return rng.choice(NAMES)
    return wild(rng).capitalize()


def code(rng: random.Random) -> str:
    """An id such as ``BX-204`` or ``a7f3``."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    kind = rng.randrange(5)
    if kind == 0:
        return "".join(rng.choices(letters, k=rng.randint(1, 3))) + f"-{rng.randint(1, 9999)}"
    if kind == 1:
        return "".join(rng.choices(letters, k=rng.randint(1, 3))) + str(rng.randint(1, 999))
    if kind == 2:
        return "".join(rng.choices("abcdef0123456789", k=rng.randint(4, 7)))
    if kind == 3:
        return f"{rng.choice(PLAIN)}-{rng.randint(1, 99)}"
    return f"{rng.choice(PLAIN)}_{rng.choice(PLAIN)}"


def text_value(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return proper(rng)
    if kind < 0.7:
        return code(rng)
    if kind < 0.8:
        return f"{proper(rng)} {wild(rng).capitalize()}"
    if kind < 0.86:
        return f"{wild(rng)}@{wild(rng)}.{rng.choice(('com', 'org', 'net', 'io'))}"
    if kind < 0.9:
        return f"{rng.choice(PLAIN)}.{rng.choice(('txt', 'pdf', 'csv', 'png', 'yaml'))}"
    if kind < 0.93:
        return f"{rng.randint(2019, 2035)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return " ".join(rng.choices(PLAIN, k=rng.randint(1, 3)))


def number(rng: random.Random, whole: bool) -> int | float:
    if whole:
        return rng.randint(0, rng.choice((9, 24, 99, 100, 999, 3000, 99999)))
    return round(rng.uniform(0, rng.choice((2, 10, 100, 900))), rng.choice((1, 2)))


def thing(rng: random.Random) -> str:
    """A noun of one or two words, at times made up."""
    kind = rng.random()
    first = rng.choice(NOUNS) if kind < 0.75 else wild(rng)
    if rng.random() < 0.4:
        return (
            f"{rng.choice((rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(PLAIN)))} {first}"
        )
    return first


def stray(rng: random.Random) -> str:
    """A word that has nothing to do with the question it is put into."""
    kind = rng.random()
    if kind < 0.35:
        return wild(rng)
    return rng.choice(rng.choice((PLAIN, ADJECTIVES, VERBS)))
