"""What the guide does not know: the rest of the world, and the rest about Roundhouse."""

from __future__ import annotations

import random

from scripts.guide.phrasing import expand

ANSWER = "I do not know that. I only know Roundhouse."

LISTS: dict[str, str] = {
    "country": "france japan brazil canada egypt norway kenya peru india greece spain turkey chile cuba "
    "poland iceland vietnam morocco germany italy china australia mexico nigeria scotland austria",
    "city": "paris tokyo rome oslo cairo lima madrid berlin vienna sydney toronto chicago dublin prague "
    "athens nairobi boston hamburg milan seoul bangkok warsaw zurich geneva helsinki porto naples",
    "person": "napoleon|einstein|shakespeare|mozart|beethoven|cleopatra|newton|darwin|picasso|gandhi|caesar"
    "|the president|the king|the pope|marie curie|taylor swift|messi|my neighbour|galileo|bach|columbus",
    "animal": "cat dog horse elephant whale penguin lion snake spider frog parrot bear wolf rabbit shark owl",
    "food": "bread|pasta|pizza|soup|rice|cake|pancakes|curry|an omelette|a salad|steak|sushi|potatoes|eggs"
    "|porridge|lentils|a chicken|cookies|lasagne|tea|coffee|jam|noodles|fish|beans|a pie",
    "thing": "car|bicycle|house|sofa|guitar|piano|phone|camera|watch|fridge|boat|tent|table|garden|roof|lamp"
    "|shirt|umbrella|engine of a car|train ticket|lawn mower|washing machine|toaster|television|kettle",
    "topic": "love|war|gravity|history|philosophy|evolution|the moon|the sun|black holes|football|tennis|chess"
    "|poetry|economics|the stock market|inflation|religion|photosynthesis|dinosaurs|the roman empire|jazz"
    "|quantum physics|climate change|the french revolution|volcanoes|dna|vitamins|astrology|yoga|opera"
    "|electricity|the brain|bees|glaciers|vikings|pyramids|planets|galaxies|taxes|marketing|knitting",
    "poem": "poem|song|story|joke|limerick|rhyme|sonnet|letter|essay|speech|fairy tale|novel|riddle|sketch"
    "|short story|play|ballad|recipe|toast|tweet|slogan|verse",
    "subject": "the sea|the spring|winter|a cat|my mother|friendship|the stars|a dragon|rain|love|a lost key"
    "|the city|mountains|birds|trees|the snow|a river|a knight|flowers|summer nights|the night sky|old age",
    "event": "the world cup|the super bowl|the olympics|the election|the oscars|the war|the tour de france"
    "|the champions league|the nobel prize|the eurovision song contest|wimbledon|the euro|the final",
    "lang": "python|java|rust|javascript|c++|go|sql|haskell|bash|ruby|php|swift",
    "algo": "sorts a list|reverses a string|computes primes|parses a date|counts words|draws a circle"
    "|sends a mail|solves sudoku|finds a path|prints a triangle|adds two numbers|reads a csv file",
    "tongue": "french|german|spanish|italian|japanese|latin|swedish|polish|greek|dutch|chinese|finnish",
    "phrase": "good morning|i love you|where is the station|the red house|thank you|my name is anna|cheese"
    "|a glass of water|see you tomorrow|the cat sleeps|happy birthday|how much is it|it is raining",
    "illness": "headache|cold|fever|cough|back pain|toothache|sore throat|flu|rash|stomach ache|burn",
    "day": "today|tomorrow|this week|next week|on sunday|on monday|tonight|on friday|this weekend|in july",
    "work": "movie|book|film|series|game|song|restaurant|hotel|beach|museum|band|album|holiday|novel|wine",
    "year": "1066 1492 1789 1815 1914 1945 1969 1989 2001 2008 2012 2016 2020 1871 1707 1954 1966 2006 2014",
}

PATTERNS = (
    "what is the {capital|population|currency|flag|size|language|anthem|highest mountain} of <country>",
    "who {is|was|are|were} <person>",
    "{when|where} was <person> {born|buried|crowned}",
    "{when|where|how} did <person> {die|live|become famous|get rich}",
    "tell me {about|something about|a fact about} <topic>",
    "what {is|was} <topic>",
    "explain <topic> [to me|to a child]",
    "how does <topic> work",
    "why is <topic> {important|hard|interesting|so popular}",
    "{write|compose|make|tell|sing|invent} [me] a <poem> [about <subject>]",
    "i want a <poem> about <subject>",
    "can you {write|tell|compose} a <poem> about <subject>",
    "who {won|will win|lost|hosted|played in|is going to win} <event> [in <year>]",
    "what {score|result} was <event> in <year>",
    "what happened in <year>",
    "in {which|what} year {did|was} {the war|<person>|<event>|the wall} {start|end|begin|born|fall}",
    "{what's|what is|calculate|compute|solve|how much is} <n> {+|-|*|/|plus|minus|times|divided by|x} <n>",
    "<n> {+|-|*|/|plus|minus|times} <n>",
    "what is the {square root|square|half|double|cube|factorial} of <n>",
    "is <n> {a prime|a prime number|even|odd|divisible by 3}",
    "how many {days|hours|minutes|weeks|seconds} are in {a year|<n> weeks|a month|a day|<n> years}",
    "convert <n> {miles|pounds|euros|inches|dollars|fahrenheit|litres} to {km|kilos|dollars|cm|yen|celsius|cups}",
    "how {do|can|should|would} i {cook|make|bake|prepare|fry|roast|store|freeze|season|reheat} <food>",
    "how long {does|do|must|should} <food> {cook|bake|take|keep|rest|boil|simmer|stay in the oven}",
    "how {long|hot} {must|should|do} i {cook|bake|boil|fry|roast|steam|grill|microwave} <food>",
    "how {much salt|many eggs|much sugar} goes into <food>",
    "{what can i cook|what should i eat|give me a recipe} {with <food>|today|for <food>|tonight}",
    "{is|are} <food> healthy",
    "what is the {weather|temperature|forecast} [like] in <city> <day>",
    "{will|does} it {rain|snow|be sunny|be warm|freeze} [in <city>] <day>",
    "is it {raining|snowing|sunny|cold|warm|windy|going to snow|going to be warm} [in <city>] [<day>]",
    "do i need {an umbrella|a coat|sunscreen} [in <city>] <day>",
    "what time is it [in <city>]",
    "what {day|date} is {it|today|tomorrow}",
    "how {far|long} is it {from <city> to <city>|to the moon|to <city>}",
    "how do i {get|travel|fly|drive|go} to <city>",
    "{what should i see|where should i eat|which hotel is good|where can i sleep} in <city>",
    "{recommend|suggest} [me] a {good|nice|} <work> [for <day>]",
    "what is the best <work> [of <year>|of all time]",
    (
        "who {wrote|directed|sang|painted|composed|invented|discovered|founded|built} {hamlet|the <thing>|the mona lisa"
        "|<city>|it|faust|the telephone|penicillin|the <work>|america|the steam engine|the radio|the wheel}"
    ),
    "how {do|can} i {repair|fix|clean|buy|sell|paint|build|move|start|open|install|tune} {a|my|the} <thing>",
    "how much {does|is} a <thing> [cost]",
    "my <thing> {is broken|does not work|makes a noise|is dirty|was stolen|does not start|smells}",
    "which <thing> {should i buy|is the best|is the cheapest|do you like}",
    "how {old|big|fast|heavy|long|high} is {a <animal>|<person>|the moon|the sun|mount everest|a <thing>|<city>}",
    "{why|how|when} do <animal>s {sleep|eat|sing|hunt|fly|die|bark}",
    "what {do|does} {a <animal>|<animal>s} {eat|weigh|cost|like|say}",
    "is a <animal> a {mammal|reptile|pet|bird|good pet}",
    "{write|give me|show me} {a|some} <lang> {function|program|script|code|class} {that <algo>|which <algo>}",
    "how do i {sort|reverse|copy|split|merge} a {list|string|file|dictionary|table} in <lang>",
    "{debug|fix|review|explain|refactor} {this|my} <lang> {code|function|program|script}",
    "{translate|say|write} {<phrase>|this} {in|to|into} <tongue>",
    "how do you say <phrase> in <tongue>",
    "what does {serendipity|carpe diem|ubiquitous|<food>|schadenfreude|pi} mean [in <tongue>]",
    "i have a <illness> {what helps|what should i do|what can i take|is it bad}",
    "what helps against {a <illness>|<illness>}",
    "should i {see a doctor|take a pill|invest in gold|buy stocks|sell my <thing>|marry|move to <city>|quit my job}",
    "what is {the meaning of life|love|your favourite colour|happiness|the largest ocean|the speed of light}",
    "{what's your|do you have a} favourite {colour|food|song|movie|book|animal|team}",
    "do you {like|love|eat|hate|know} {music|me|<food>|<animal>s|<city>|football|<person>|my mother}",
    "what {should|shall} i {wear|read|watch|play|buy|do|learn} <day>",
    "who is the {president|king|queen|chancellor|prime minister|mayor} of {<country>|<city>}",
    (
        "how do i {lose weight|learn <tongue>|get rich|sleep better|train for a marathon|become a pilot|stop smoking"
        "|grow tomatoes|tie a tie|play the guitar|find a job|file my taxes|write a cv}"
    ),
    "what is the {price|stock price|value} of {gold|bitcoin|apple|oil|silver|tesla|a <thing>|wheat}",
    "give me the {news|latest news|headlines|weather|lottery numbers|football results} [<day>]",
    "{summarise|summarize|correct|rewrite} {this text|my essay|the book|hamlet|war and peace|this email}",
    "which {planet|river|ocean|desert|mountain|country|city} is the {largest|longest|biggest|smallest|highest|oldest}",
    "what colour is {the sky|a <animal>|mars|a banana|the sea|my <thing>|grass}",
    "{name|list} {three|five|some|ten} {planets|rivers|kings|presidents|<food>|cities in <country>|trees|composers}",
    "what is {python|java|rust|sql|linux|git|bitcoin|photoshop|excel|windows}",
    "how do i {use|install|learn} {linux|git|excel|photoshop|windows|java|word|postgres|nginx|react}",
    "what is the {port|harbour} of <city> {like|famous for}",
    "where is the {train station|railway museum|airport|library|next bakery|post office|nearest bank} [in <city>]",
    "when does the {next|last|first} {train|bus|plane|ferry} {leave|arrive|go} [to <city>]",
    "how do i start {a|my} {diesel engine|business|car|fire|band|diet|family|garden|conversation|motorbike}",
    "who {founded|started|owns|pays for|sponsors|leads|maintains} {roundhouse|this project}",
    "when was roundhouse {founded|released|first released|started|written}",
    "how many {users|stars|developers|contributors|customers|lines of code} does roundhouse have",
    "{is there|do you have|does roundhouse have} {paid support|a phone number|an app|a mobile app|a podcast|a logo|an office}",
    "what is the roadmap of roundhouse",
    "is roundhouse better than {ollama|litellm|lm studio|bedrock|openrouter|ray serve}",
    "what is {ollama|litellm|openrouter|llama.cpp|tensorrt|a transformer|backpropagation|a gradient|pytorch lightning}",
    "{what's|what is} the {plot|end|moral|author|hero} of {hamlet|faust|the odyssey|star wars|the lion king|it}",
    "{are|is} there {life on mars|a god|aliens|ghosts|water on the moon|a bank in <city>}",
    "{can|could} you {order <food>|book a hotel in <city>|call my mother|play music|sing|drive|dance|draw a <animal>}",
    "<wild> <wild> <wild>",
    "what is {a|the} <wild>",
    "who is <wild> <wild>",
    "how do i <wild> {a|my|the} <wild>",
    "where {is|can i buy|do i find} {a|the} <wild> <wild>",
    "why {is|does|did} {the|a} <wild> <wild>",
    "tell me about <wild> [<wild>]",
    "what happened to <wild> in <year>",
)

SYLLABLES = (
    "ba be bi bo bra bre ca ce chi co cra da de di dor dra dul el en es fa fe fi flo fra ga ge gi glo gra ha he hol"
    " in jo ka ke kel ki kra la le li lo lum ma me mi mo mun na ne ni no nor o or pa pe pi plo pra qua ra re ri ro"
    " sa se shi sko so sta su ta te ti to tra tu ul um va ve vi vo wa we wi xo ya ye za zi zu"
).split()


def wild(rng: random.Random) -> str:
    """A made-up word, so that words never seen read as "not Roundhouse"."""
    word = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4)))
    return word + rng.choice(("", "", "n", "r", "s", "t", "l", "ng", "ck"))


def draw(rng: random.Random) -> str:
    """A question that the guide cannot answer."""
    text = rng.choice(PATTERNS)
    while "<" in text:
        start = text.index("<")
        end = text.index(">", start)
        name = text[start + 1 : end]
        if name == "n":
            word = str(rng.randint(2, rng.choice((12, 100, 999))))
        elif name == "wild":
            word = wild(rng)
        else:
            body = LISTS[name]
            word = rng.choice(body.split("|") if "|" in body else body.split())
        text = text[:start] + word + text[end + 1 :]
    return expand(rng, text)
