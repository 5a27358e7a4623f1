"""Questions beyond the demo's knowledge, which all get the same polite answer."""

from __future__ import annotations

REFUSAL = (
    "I do not know that; I am only a tiny demo. The real model is sppo-iter3: run edgesppo "
    "pull sppo-iter3"
)

_TOPICS = (
    "(physics|chemistry|history|politics|law|music|art|economics|philosophy|medicine|football|"
    "tennis|chess|cooking|gardening|taxes|insurance|mortgages|genetics|evolution|gravity|"
    "electricity|magnetism|"
    "black holes|quantum "
    "mechanics|relativity|photosynthesis|volcanoes|earthquakes|vaccines|viruses|democracy|the "
    "french revolution|the roman empire|world war two|the cold war|the stock "
    "market|inflation|blockchain|bitcoin|"
    "machine learning|neural networks|java|javascript|docker|linux|databases|sorting "
    "algorithms|climate change|solar power|electric cars|space travel|the moon "
    "landing|dinosaurs|whisky|jazz|opera|ballet|yoga|marathon "
    "training|sleep|stress|love|friendship|happiness)"
)
_THINGS = (
    "(the ocean|autumn|a river|my garden|the moon|a lonely robot|spring|a "
    "storm|winter|friendship|the stars|an old house|a train|a castle|a forest|a dragon|a "
    "pirate|my grandmother|a wizard|a detective|the desert|a lighthouse|coffee|rain)"
)
_PEOPLE = (
    "(napoleon|einstein|mozart|beethoven|picasso|newton|darwin|caesar|cleopatra|gandhi|lincoln|"
    "galileo|tolstoy|goethe|marie curie|leonardo da vinci|van gogh|bach|aristotle|plato|the "
    "president|the king|the prime minister|the pope)"
)
_DISHES = (
    "(pasta|soup|bread|pancakes|curry|risotto|an omelette|a cake|rice|fish|a "
    "salad|pizza|noodles|a steak|cookies|a pie|tea|coffee)"
)
_PLACES = (
    "(brazil|mexico|turkey|ukraine|belgium|switzerland|argentina|chile|thailand|vietnam|korea|"
    "australia|new zealand|morocco|nigeria|iceland|the "
    "netherlands|romania|bulgaria|croatia|serbia|israel|iran|iraq|pakistan|indonesia|mongolia|"
    "bolivia|colombia|venezuela|jamaica|texas|california)"
)
_WHERE = (
    "(london|paris|rome|berlin|tokyo|new york|madrid|vienna|my town|the "
    "city|brazil|mexico|texas|chicago|sydney|the mountains|italy|france|japan|spain)"
)
_LANGUAGES = (
    "(french|german|spanish|italian|latin|russian|japanese|chinese|arabic|greek|dutch|polish)"
)

ASKS: tuple[str, ...] = (
    "(explain|describe|tell me about|what is|teach me|what do you know about|give me an "
    f"overview of|summarise|i want to learn|define) {_TOPICS}",
    f"(how does|how do) {_TOPICS} work",
    f"(what is|what's) the (history|meaning|future|theory|best book) (of|on|about) {_TOPICS}",
    f"why is {_TOPICS} (important|so hard|interesting|popular)",
    "(write|compose|make|create|give me) (a|an|me a) (poem|story|song|haiku|short "
    f"story|essay|letter|speech|text) (about|on|for) {_THINGS}",
    f"tell me a story about {_THINGS}",
    f"(draw|paint|sketch) (a picture of |){_THINGS}",
    f"(who was|who is|tell me about|what did|when was) {_PEOPLE}( born| do| discover|)",
    f"(when|where|how) (did {_PEOPLE} (die|live)|was {_PEOPLE} born)",
    f"how old (is|was) {_PEOPLE}",
    f"(what is|what's) {_PEOPLE} famous for",
    "(how do i|how can i|how to|what is the best way to|teach me how to) "
    f"(cook|make|bake|prepare) {_DISHES}",
    f"(give me|what is|find) (a|the) recipe for {_DISHES}",
    f"how long (do i|should i|must i) cook {_DISHES}",
    f"how many calories (are in|has) {_DISHES}",
    "(what is|tell me|what's|name) the "
    f"(capital|population|currency|flag|president|king|language|size|area) of {_PLACES}",
    f"how many people live in {_PLACES}",
    f"(what|which) language do people speak in {_PLACES}",
    f"where is {_PLACES}",
    f"how far is it to {_PLACES}",
    "(what is|what's|how is|how will) the weather (be |)(in "
    f"{_WHERE}|today|tomorrow|like|now|next week|on sunday)( be|)",
    f"(will it|does it|is it going to) (rain|snow)( today| tomorrow| in {_WHERE}|)",
    "is it (cold|warm|hot|raining|sunny) (outside|today|there)",
    f"(plan|organise|book) (a|my) (trip|day|weekend|holiday|flight|journey) (to|in) {_WHERE}",
    "(what|which) (restaurants|hotels|museums|sights) (are there|can you recommend|are good) in "
    f"{_WHERE}",
    f"how do i get to {_WHERE}",
    "(translate|say|write) (this|good morning|hello|i love you|this sentence|thank you|the word "
    f"house|my letter) (in|into|to) {_LANGUAGES}",
    f"how do you say (hello|thank you|water|cheese|please|goodbye) in {_LANGUAGES}",
    "(what time is it|what's the time|what is the date|what is today's date|which year is "
    "it|what year is it|what day is it today)",
    "(what is|what's|how much is) {n} (times|divided by|multiplied by|to the power of) {m}",
    "(what is|calculate) the (square root|factorial|logarithm|half) of {n}",
    "{n} (x|times|by) {m}",
    "(who won|who will win|who lost) the (election|world "
    "cup|race|match|final|game|tournament|championship|football match|tennis match)( last night| "
    "yesterday| this year| in {y}| on sunday|)",
    "(what|who) (happened|was born|was famous|ruled) in {y}",
    "what are (the|today's) (news|headlines)( of today|)",
    "(write|show me|give me|fix|debug) (a|some|my|the) (program|code|function|script|regex|sql "
    "query|class)( in python| in java| in c| for sorting| that sorts a list|)",
    "(how do i|how can i|how to) (sort a list|read a file|write a loop|parse xml|centre a "
    "div|reverse a string|open a port|delete a branch|make a website)( in python| in java| in c|)",
    "(how do i|how can i|how to|help me) (lose weight|learn to swim|learn piano|find a job|fix "
    "my car|repair a bike|grow tomatoes|get rich|sleep better|stop smoking|train my dog|tie a "
    "tie|clean a carpet|paint a wall|write a book|buy a house|ask for a raise|make friends|save "
    "money)",
    "(should i|shall i) (buy a car|marry|move|sell my house|quit my job|study law|invest in "
    "gold|learn rust|go to the doctor|get a haircut)",
    "(what|which) (film|movie|book|song|game|phone|car|laptop|bike) (should i|do you|would you) "
    "(watch|read|hear|play|buy|recommend)",
    "(who|what) (painted the mona lisa|invented the telephone|invented the light bulb|discovered "
    "america|wrote faust|wrote war and peace|is the richest man|was the first man on the "
    "moon|directed jaws|sang yesterday|built the pyramids|is the fastest car|is the longest "
    "river|is the smallest country)",
    "(why|how) (do birds fly|do planes fly|do cats purr|is the sea salty|do we dream|do leaves "
    "fall|do people yawn|do stars shine|does soap work|does a fridge work|do magnets work|did "
    "the dinosaurs die|do fish breathe|does rain form)",
    "(how far|how big|how old|how hot|how heavy) is (the moon|the sun|the earth|mars|the "
    "universe|an elephant|a whale|a mountain|the eiffel tower)",
    "(what is|what's) the (meaning of life|speed of light|speed of sound|price of gold|best "
    "car|best phone|answer to everything|chemical symbol of (gold|iron|silver)|atomic number of "
    "(iron|carbon|helium)|value of pi)",
    "how (tall|fast|long|deep) is (the nile|mount fuji|a lion|a train|the sea|the amazon|a "
    "giraffe|big ben)",
    "(summarise|read|review|proofread|shorten|correct) (this article|my essay|this text|the "
    "book|my email|this page|my letter)",
    "(write|draft) (an email|a letter|a message) to (my boss|my landlord|my friend|the bank|a "
    "customer|my teacher)",
    "(play|sing|find|order|call|open|send|buy) (a song|some music|a pizza|my mother|the door|an "
    "email|a taxi|me a coffee|a ticket|chess with me)",
    "(what|which) (medicine|pills|vitamins) (should i take|help|are good)( for a headache| "
    "against a cold|)",
    "(i have a|what helps against a|what to do about a) (headache|fever|cold|cough|broken "
    "leg|toothache)",
    "(can you|could you|please) (see|hear|open|browse|search) (me|this picture|my screen|the "
    "web|the internet|my files)",
    f"what (do you think|is your opinion) (of|about|on) {_TOPICS}",
    f"(is|are) {_TOPICS} (good|bad|dangerous|useful|true|real)",
    f"compare {_TOPICS} (and|with) {_TOPICS}",
    "(give me|list|name) (three|five|ten|some) (facts|books|tips|ideas|examples) (about|on|for) "
    f"{_TOPICS}",
    "(how many|what) (people live on earth|stars are there|countries are there|bones do i "
    "have|grains of sand are there|languages are there|books exist|trees are in a forest)",
    "{w} {w} {w}",
    "(where is|when was|why is|who was|tell me about) (a |the |){w}( made| in {y}|)",
    "what is the (tallest|oldest|richest|deepest|best|cheapest|newest|strongest) "
    "(building|bridge|city|man|woman|lake|car|hotel|tree|dog|country|player|school|tower)( in "
    "the world| in {y}| there| of all|)",
    "(recommend|suggest|find) (me |)(a|some) (good "
    "|)(book|novel|film|song|hotel|restaurant|doctor|phone|game|wine|gift)( for my mother| for "
    "tonight|)",
    "who is (the (president|king|queen|mayor|owner|boss|leader) of (france|spain|germany|the "
    "bank|the club|this town|google)|the (best|richest|oldest) (man|player|singer|actor))",
)
