"""Facts of which there is one of a kind: (ways to ask, answer)."""

from __future__ import annotations

SINGLE: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "(what|which) (is the|planet is the) (largest|biggest) (planet|one in the solar "
            "system|)",
            "(name|tell me) the (largest|biggest) planet",
            "(largest|biggest) planet",
            "(what|which) planet is (the |)(biggest|largest)( of all|)",
            "how is the (biggest|largest) planet called",
            "the (biggest|largest) planet (is|in the solar system is)",
            "(can|could) you (tell me|name) the (biggest|largest) planet",
        ),
        "The largest planet is Jupiter.",
    ),
    (
        (
            "(what|which) (planet is|is) (called |)the red (planet|one)",
            "(name|tell me) the red planet",
            "(which|what) planet (is|looks|seems) red",
            "which of the planets (is|has the colour) red",
            "the red planet (is|is called)",
            "(what is|what's) the (name of the|red) red planet",
            "what do (you|people) call the red planet",
            "is there a red planet",
        ),
        "The red planet is Mars.",
    ),
    (
        (
            "(what|which) planet is (closest|nearest) to the sun",
            "(name|tell me) the planet (closest|nearest) to the sun",
            "the (closest|nearest) planet to the sun (is|)",
            "(what|which) is the (closest|nearest) planet to the sun",
            "(what|which) is the first planet (from the sun|)",
        ),
        "The planet closest to the sun is Mercury.",
    ),
    (
        (
            "(what|which) planet (do|are) (we|you|people) (live|living) on",
            "on (what|which) planet do we live",
            "(what is|name) (our|the planet we live on|our planet)",
            "(name|what's) our (home |)planet",
        ),
        "We live on the planet Earth.",
    ),
    (
        (
            "(what|which) planet (has|is famous for its|has big) rings",
            "(name|tell me) the planet with (the |)rings",
            "the planet with rings (is|)",
            "rings are around (which|what) planet",
        ),
        "The planet with the rings is Saturn.",
    ),
    (
        (
            "what do bees (make|produce|give us|collect)",
            "(tell me|say) what bees (make|produce)",
            "bees (make|produce) (what|)",
            "(what|which) food (do bees make|comes from bees)",
            "what (do|can) we get from bees",
            "what is made by bees",
            "why do we keep bees",
        ),
        "Bees make honey.",
    ),
    (
        (
            "what do cows (give|give us|make|produce)",
            "cows (give|produce) (what|)",
            "(what|which) drink comes from (a cow|cows)",
            "what do we get from (cows|a cow)",
        ),
        "Cows give milk.",
    ),
    (
        (
            "what is frozen water (called|)",
            "what do (you|we) call frozen water",
            "frozen water is (called|)",
            "(what does|what will) water (become|turn into|turn to) when it (freezes|is "
            "frozen|gets very cold)",
            "what (happens to|becomes of) water when it freezes",
        ),
        "Frozen water is called ice.",
    ),
    (
        (
            "at (what|which) temperature does water (boil|start to boil)",
            "(when|how hot) does water boil",
            "(what is|tell me) the boiling point of water",
            "boiling point of water",
            "how hot is boiling water",
        ),
        "Water boils at 100 degrees Celsius.",
    ),
    (
        (
            "at (what|which) temperature does water freeze",
            "(when|how cold) does water freeze",
            "(what is|tell me) the freezing point of water",
            "freezing point of water",
        ),
        "Water freezes at 0 degrees Celsius.",
    ),
    (
        (
            "(what|which) is the (largest|biggest) animal( on earth| in the world|)",
            "(name|tell me) the (largest|biggest) animal",
            "(what|which) animal is the (biggest|largest)",
            "(largest|biggest) animal",
        ),
        "The largest animal is the blue whale.",
    ),
    (
        (
            "(what|which) is the fastest (land |)animal( on land| on earth|)",
            "fastest (land |)animal",
            "(name|tell me) the fastest (land |)animal",
            "(what|which) (land |)animal (is the fastest|runs fastest)",
        ),
        "The fastest land animal is the cheetah.",
    ),
    (
        (
            "(what|which) is the tallest animal( on earth| in the world|)",
            "tallest animal",
            "(name|tell me) the tallest animal",
            "(what|which) animal is the tallest",
            "(what|which) animal has the longest neck",
        ),
        "The tallest animal is the giraffe.",
    ),
    (
        (
            "(what|which) is the (highest|tallest) mountain( on earth| in the world|)",
            "(name|tell me) the (highest|tallest) mountain",
            "(highest|tallest) mountain",
            "(what|which) mountain is the (highest|tallest)",
        ),
        "The highest mountain is Mount Everest.",
    ),
    (
        (
            "(what|which) is the (largest|biggest) ocean( on earth| in the world|)",
            "(name|tell me) the (largest|biggest) ocean",
            "(largest|biggest) ocean",
            "(what|which) ocean is the (biggest|largest)",
        ),
        "The largest ocean is the Pacific Ocean.",
    ),
    (
        (
            "who wrote (romeo and juliet|hamlet|macbeth)",
            "(tell me|name) (who wrote|the author of) (hamlet|romeo and juliet)",
            "(hamlet|macbeth|romeo and juliet) was written by (whom|who|)",
            "who is the author of (hamlet|macbeth)",
        ),
        "William Shakespeare wrote it.",
    ),
    (
        (
            "(what|which) is the first (day|day of the week)",
            "(what|which) day (begins|starts) the week",
            "with (what|which) day does the week (begin|start)",
        ),
        "The first day of the week is Monday.",
    ),
    (
        (
            "(what|which) is the first month( of the year|)",
            "(what|which) month (begins|starts) the year",
            "the year (begins|starts) with (what|which) month",
        ),
        "The first month of the year is January.",
    ),
    (
        (
            "(what|which) is the last month( of the year|)",
            "(what|which) month (ends|closes) the year",
            "the year ends with (what|which) month",
        ),
        "The last month of the year is December.",
    ),
    (
        (
            "(what|which) month is (christmas|christmas day) in",
            "in (what|which) month is christmas",
            "when is christmas",
            "christmas is in (what|which) month",
        ),
        "Christmas is in December.",
    ),
    (
        (
            "(what|which) colou?r do (you|i) get (when|if) (you|i) mix (blue and yellow|yellow "
            "and blue)",
            "(blue and yellow|yellow and blue) (make|makes|give|gives) (what|which color|which "
            "colour|)",
            "what do blue and yellow make",
            "mix blue and yellow",
        ),
        "Blue and yellow make green.",
    ),
    (
        (
            "(what|which) colou?r do (you|i) get (when|if) (you|i) mix (red and white|white and "
            "red)",
            "(red and white|white and red) (make|makes|give|gives) (what|which color|which "
            "colour|)",
            "what do red and white make",
            "mix red and white",
        ),
        "Red and white make pink.",
    ),
)
