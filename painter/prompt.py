"""Read prompts: find the words that the painter knows, and determine the scene that they describe."""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class PaintRequest:
    """A picture to paint.

    `width` and `height` are in pixels. `seed` is any integer. Each seed gives a different picture for the
    same prompt.
    """

    prompt: str
    width: int
    height: int
    seed: int
    negative_prompt: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What to paint.

    `subject` is the main subject, such as the sea, and `time` is the time of day. A tag is a key of
    `VOCABULARY`. `tags` contains the tags that the prompt names, and `excluded` contains those that must not
    appear in the picture. `colours` contains the colours in `tags`, in the order in which they are named.
    """

    subject: str
    time: str
    tags: frozenset[str]
    excluded: frozenset[str]
    colours: tuple[str, ...]

    def has(self, tag: str, default: bool = False) -> bool:
        """Return whether a tag belongs in the picture.

        A tag belongs in the picture if the prompt names the tag or if `default` is true, unless the tag is
        excluded.
        """
        return tag not in self.excluded and (default or tag in self.tags)

    def has_any(self, *tags: str) -> bool:
        """Return whether at least one of the tags belongs in the picture."""
        return any(self.has(tag) for tag in tags)


def read_scene(request: PaintRequest) -> Scene:
    """Return the scene for a request. A hash of the prompt determines what the prompt does not specify."""
    named, refused = find_tags(request.prompt)
    excluded = frozenset(refused) | frozenset(find_tags(request.negative_prompt)[0])
    tags = [tag for tag in named if tag not in excluded]
    rng = stable_random("scene", request.prompt)
    return Scene(
        subject=_choose_subject(tags, excluded, rng),
        time=_choose_time(tags, excluded, rng),
        tags=frozenset(tags),
        excluded=excluded,
        colours=tuple(tag for tag in tags if tag in COLOURS),
    )


def _choose_subject(tags: list[str], excluded: Collection[str], rng: Random) -> str:
    chosen = rng.choice([subject for subject in _DEFAULT_SUBJECTS if subject not in excluded] or ["abstract"])
    for subject in _SUBJECTS_BY_PRIORITY:
        if subject in tags:
            return subject
    if {"sea", "beach", "boat", "lighthouse"} & set(tags):
        return "sea"
    if "cactus" in tags:
        return "desert"
    if "palms" in tags:
        return "island"
    if {"meadow", "flowers", "house", "trees", "rainbow"} & set(tags):
        return "meadow"
    return "mountains" if {"lake", "aurora", "winter"} & set(tags) else chosen


def _choose_time(tags: list[str], excluded: Collection[str], rng: Random) -> str:
    chosen = rng.choice([time for time in _DEFAULT_TIMES if time not in excluded] or ["day"])
    for time in ("night", "sunset", "dawn", "dusk", "day"):
        if time in tags:
            return time
    if {"moon", "stars", "aurora", "space"} & set(tags):
        return "night"
    if "storm" in tags:
        return "dusk"
    return "day" if {"rainbow", "rain", "sun", "snow"} & set(tags) else chosen


def stable_random(*parts: object) -> Random:
    """Return a random source that depends only on `parts`. Strings may even contain lone surrogates."""
    joined = "\x1f".join(str(part) for part in parts)
    digest = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).digest()
    return Random(int.from_bytes(digest, "big"))


def find_tags(text: str) -> tuple[list[str], set[str]]:
    """Return a list of the tags that `text` names, and a set of the tags that it negates ("no clouds")."""
    found = list(_find_tagged_words(text))
    refused = {tag for tag, wanted in found if not wanted}
    return list(dict.fromkeys(tag for tag, wanted in found if wanted)), refused


def _find_tagged_words(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a pair for each known word: the tag of the word, and False if the word is negated, else True."""
    plain = _normalised(text)
    before = ""
    for word in _latin_words(plain):
        if tag := _meaning(word):
            yield tag, before not in _NEGATIONS or (tag in _NEVER_NEGATED and before in ("no", "sin"))
        before = word
    yield from ((tag, True) for word, tag in _NON_LATIN.items() if word in plain)


def _latin_words(text: str) -> list[str]:
    """Return the words in Latin letters. Known phrases are replaced with words of the vocabulary."""
    plain = f" {' '.join(re.findall('[a-z]+', text))} "
    for phrase, word in _PHRASES.items():
        plain = plain.replace(f" {phrase} ", f" {word} ")
    return plain.split()


def _meaning(word: str) -> str | None:
    """Return the tag of a word, which may be a plural, or None if the word is unknown."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in _MEANINGS:
            return _MEANINGS[form]
    return None


def _normalised(text: str) -> str:
    """Return the text in lower case and without accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


COLOURS = frozenset(
    {"red", "orange", "yellow", "gold", "green", "teal", "blue", "purple", "pink", "brown", "white", "black"}
)
"""The tags that are colours."""

_SUBJECTS_BY_PRIORITY = ("space", "abstract", "volcano", "city", "island", "desert", "mountains", "forest")
"""If a prompt names several of these subjects, the first in this order is painted. The other subjects become
details."""

_DEFAULT_SUBJECTS = ("mountains", "mountains", "sea", "meadow", "forest", "desert", "island")
"""The subjects to choose from if the prompt names no subject. Subjects that are listed twice are more
likely."""

_DEFAULT_TIMES = ("sunset", "sunset", "dawn", "dawn", "day", "dusk")
"""The times of day to choose from if the prompt names none. Times that are listed twice are more likely."""

_PHRASES = {
    "black and white": "blackandwhite",
    "noir et blanc": "noiretblanc",
    "blanco y negro": "blancoynegro",
    "schwarz weiss": "schwarzweiss",
    "northern lights": "northernlights",
    "polar lights": "northernlights",
    "milky way": "milkyway",
    "am see": "bergsee",
    "der see": "bergsee",
    "ein see": "bergsee",
    "golden hour": "goldenhour sunset",
    "hot air balloon": "hotairballoon",
    "coucher de soleil": "couchersoleil",
    "arc en ciel": "arcenciel",
    "puesta de sol": "puesta",
}
"""Maps phrases to the words of the vocabulary that replace them."""

_NEGATIONS = frozenset(["no", "not", "without", "ohne", "kein", "keine", "sans", "sin", "senza", "sem"])

_NEVER_NEGATED = frozenset(["sea", "lake", "beach", "forest", "city", "desert", "meadow"])
"""Places that "no" and "sin" do not negate. For example, "no mar" is Portuguese for "in the sea"."""

VOCABULARY: dict[str, str] = {
    # Times of day
    "sunset": "sunset sundown evening sonnenuntergang abendrot abend couchersoleil atardecer puesta tramonto"
    " ocaso entardecer 夕焼け 夕日 日落 黄昏 закат غروب",
    "dawn": "dawn sunrise daybreak morning morgen morgenrot sonnenaufgang aube aurore matin amanecer alba"
    " amanhecer 朝 日出 黎明 рассвет شروق",
    "day": "day noon midday daylight daytime sunny bright tag mittag sonnig midi jour ensoleille dia mediodia"
    " soleado giorno mezzogiorno soleggiato ensolarado 昼 白天 день نهار",
    "dusk": "dusk twilight gloaming dammerung crepuscule crepusculo crepuscolo anochecer сумерки",
    "night": "night midnight nighttime nacht mitternacht nuit noche notte noite 夜 ночь ليل",
    # Weather
    "rain": "rain rainy raining drizzle shower regen pluie lluvia pioggia chuva 雨 дождь مطر",
    "snow": "snow snowing snowfall snowstorm blizzard snowflake schnee neige nieve neve 雪 снег ثلج",
    "fog": "fog foggy mist misty haze hazy nebel brouillard brume niebla nebbia nevoa 霧 雾 туман ضباب",
    "storm": "storm stormy thunder thunderstorm lightning tempest sturm gewitter orage tempete tormenta"
    " tempesta tempestade 嵐 風暴 暴风 гроза буря عاصفة",
    "clouds": "cloud cloudy overcast wolke wolken nuage nuages nube nubes nuvola nuvole nuvem nuvens 雲 云"
    " облака غيوم",
    "clear": "clear cloudless klar clair despejado sereno limpo",
    "rainbow": "rainbow regenbogen arcenciel arcoiris arcobaleno 虹 彩虹 радуга",
    "aurora": "aurora northernlights polarlicht nordlicht オーロラ 极光 極光 сияние",
    # Subjects
    "mountains": "mountain peak summit alps alpine cliff canyon fjord glacier berg berge gebirge alpen"
    " montagne montagnes montana montanas montagna montanha montanhas 山 гора горы جبل جبال",
    "sea": "sea ocean wave coast bay meer ozean kuste mer mar oceano mare 海 море океан بحر",
    "lake": "lake pond river lagoon stream waterfall bergsee fluss teich lac riviere fleuve lago rio"
    " fiume laguna 湖 川 河 озеро река بحيرة",
    "beach": "beach shore seaside strand plage playa spiaggia praia 浜 沙滩 пляж شاطئ",
    "forest": "forest wood woods woodland jungle wald foret bosque selva foresta bosco floresta 森 лес غابة",
    "city": "city skyline skyscraper town urban downtown street building metropolis stadt hochhaus ville"
    " ciudad rascacielos citta cidade 街 都市 城市 город مدينة",
    "desert": "desert dune sahara sand wuste dune desierto dunas deserto dune 砂漠 沙漠 пустыня صحراء",
    "meadow": "meadow field hill grass valley countryside farm garden park wiese feld hugel tal garten"
    " prairie champ colline vallee jardin prado campo colina valle prato collina giardino 草原 野原 花园 поле"
    " луг холм حقل",
    "island": "island isle atoll insel ile isla isola ilha 島 岛 остров جزيرة",
    "volcano": "volcano volcanic lava eruption vulkan volcan vulcano vulcao 火山 вулкан بركان",
    "space": "space planet galaxy nebula cosmos cosmic universe saturn mars orbit spaceship weltraum"
    " weltall planeten galaxie espace planete espacio planeta spazio pianeta espaco galaxia 宇宙 太空 космос"
    " планета فضاء",
    "abstract": "abstract wallpaper pattern gradient shape geometric texture background abstrakt abstrait"
    " abstracto astratto abstrato 抽象 абстракция",
    # Things in the scene
    "sun": "sun sunlight sunshine sonne soleil sol sole 太陽 太阳 солнце شمس",
    "moon": "moon moonlight moonlit lunar mond lune luna lua 月 луна قمر",
    "stars": "star starry starlight milkyway stern sterne etoile etoiles estrella estrellas stella stelle"
    " estrela estrelas 星 звезды звёзды نجوم",
    "birds": "bird gull seagull eagle geese vogel mowe oiseau oiseaux pajaro pajaros aves uccello uccelli"
    " passaro passaros 鳥 鸟 птица птицы طيور",
    "boat": "boat sailboat sailing ship yacht sail segelboot boot schiff bateau voilier barco velero barca"
    " veleiro 船 лодка корабль парус قارب",
    "house": "house cabin cottage hut home village haus hutte dorf maison cabane casa cabana 家 房子 小屋"
    " дом بيت",
    "lighthouse": "lighthouse leuchtturm phare faro farol 灯台 灯塔 маяк",
    "balloon": "balloon hotairballoon ballon heissluftballon globo mongolfiera balao 気球 气球 шар",
    "cactus": "cactus cacti kaktus cactus サボテン 仙人掌 кактус",
    "palms": "palm palms palme palmen palmier palmiers palmera palmeras palma palme palmeira 椰 пальма",
    "trees": "tree pine fir spruce oak birch baum baume tanne kiefer arbre arbres sapin arbol arboles pino"
    " albero alberi arvore arvores 木 树 樹 дерево деревья شجرة",
    "flowers": "flower floral blossom bloom tulip poppy poppies rose lavender sunflower blume blumen fleur"
    " fleurs flor flores fiore fiori 花 цветы زهور",
    # Seasons
    "autumn": "autumn fall herbst automne otono autunno outono 秋 осень خريف",
    "winter": "winter snowy snowcapped icy ice frozen frost arctic polar hiver invierno inverno verschneit 冬"
    " зима شتاء",
    "spring": "spring springtime sakura fruhling printemps primavera 春 桜 樱 весна ربيع",
    # Moods
    "pastel": "pastel soft dreamy gentle delicate pastell",
    "neon": "neon cyberpunk synthwave vaporwave vivid electric retrowave",
    "monochrome": "monochrome blackandwhite grayscale greyscale noir schwarzweiss noiretblanc blancoynegro",
    # Colours
    "red": "red crimson scarlet ruby rot rote rotes roter roten rouge rojo roja rosso rossa vermelho vermelha"
    " 赤 红 紅 красный красная красное أحمر",
    "orange": "orange amber oranges naranja arancione laranja オレンジ 橙 оранжевый",
    "yellow": "yellow lemon gelb gelbe gelbes jaune amarillo amarilla giallo amarelo 黄 желтый",
    "gold": "gold golden goldenhour goldene goldenes dore dorado oro dourado 金 золотой",
    "green": "green emerald lime grun grune grunes vert verte verde 緑 绿 зеленый أخضر",
    "teal": "teal turquoise cyan aqua turkis turquesa turchese бирюзовый",
    "blue": "blue azure navy cobalt blau blaue blaues bleu bleue azul blu azzurro 青 蓝 藍 синий голубой"
    " أزرق",
    "purple": "purple violet lilac mauve magenta lila violett morado viola roxo 紫 фиолетовый",
    "pink": "pink rosa fuchsia rosy ピンク 粉 розовый",
    "brown": "brown sepia chestnut braun marron castano marrone marrom 茶色 коричневый",
    "white": "white ivory weiss weisse weisses blanc blanche blanco blanca bianco bianca branco 白 белый",
    "black": "black ebony schwarz schwarze noire negro negra nero nera preto 黒 黑 черный",
}
"""Maps each tag to its words in several languages, separated by spaces."""

_MEANINGS = {_normalised(word): tag for tag, words in VOCABULARY.items() for word in words.split()}

_NON_LATIN = {word: tag for word, tag in _MEANINGS.items() if not word.isascii()}
"""Maps words that are not in Latin letters to their tags. The words are searched for as substrings of the
prompt."""
