"""The commands of edgesppo as the demo knows them: what each does, and the ways to ask for it."""

from __future__ import annotations

# Command: (what it does, other ways to ask which command does it).
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "try": (
        "converts the demo checkpoint that ships with the package and chats with it.",
        (
            "(chats with|runs|starts|opens) the (demo|shipped model|built-in model)",
            "lets me (try|test) (it|edgesppo|the demo)",
        ),
    ),
    "chat": (
        "opens a chat with a model in the terminal.",
        ("(opens|starts|begins) a (chat|conversation)", "lets me (talk|chat) (with|to) a model"),
    ),
    "run": (
        "gives one answer to one prompt and ends.",
        ("(gives|prints) (one|a single) answer", "answers (one|a single) (prompt|question)"),
    ),
    "serve": (
        "starts an OpenAI-compatible server and a chat page on 127.0.0.1.",
        ("(starts|opens|runs) (a|the) (server|api|chat page|web page)", "gives me an openai api"),
    ),
    "batch": (
        "answers a JSON Lines file, many prompts at once.",
        (
            "answers (many prompts|a file of prompts|a json lines file|many questions)",
            "(works on|handles) many prompts",
        ),
    ),
    "convert": (
        "turns a checkpoint into a GGUF file: edgesppo convert SRC -o OUT.gguf",
        (
            "(makes|writes|builds|creates) a gguf( file|)",
            "(converts|quantises|quantizes) a (model|checkpoint)",
        ),
    ),
    "pull": (
        "downloads a model that is named in models.lock and checks it.",
        ("(downloads|fetches) (a|the) model", "gets a model from the (net|internet|hub)"),
    ),
    "list": (
        "shows which models you have.",
        ("(shows|lists) (my|all|the) models", "shows which models (i have|are there)"),
    ),
    "show": (
        "prints the details of one model.",
        (
            "(prints|shows|gives) (the |)(details|information) (of|about|on) a model",
            "shows what is in a model",
        ),
    ),
    "verify": (
        "checks a model file against its hash.",
        (
            "checks (a model file|the hash|my model file|the hashes)",
            "tells me if a file is (broken|damaged)",
        ),
    ),
    "rm": (
        "removes a model from the store.",
        ("(removes|deletes|erases) a model", "frees (space|disk space)", "gets rid of a model"),
    ),
    "lock": (
        "writes a model's hash and source into models.lock.",
        ("writes (the lock file|models.lock)", "(pins|locks) a model"),
    ),
    "eval": (
        "measures the quality of a model: perplexity, divergence or AlpacaEval.",
        (
            "measures (the |)(quality|perplexity|divergence) (of a model|)",
            "(runs|does) alpacaeval",
            "(shows|says) how good a model is",
        ),
    ),
    "bench": (
        "measures the speed of a model on this machine.",
        (
            "measures (the |)(speed|tokens per second) (of a model|)",
            "(shows|says) how fast a model is",
            "(runs|does) a (benchmark|speed test)",
        ),
    ),
    "doctor": (
        "checks that this machine and the installation are fine.",
        (
            "checks (my|the|this) (machine|installation|setup|computer)",
            "finds (problems|what is wrong)",
        ),
    ),
    "tokenize": (
        "shows the token ids of a text.",
        (
            "(shows|prints|gives) (the |)(tokens|token ids) (of a text|)",
            "turns (a |)text into tokens",
        ),
    ),
}
COMMAND_ASKS = (
    "what does {e} {x} do",
    "(what is|what's) {e} {x}( for|)",
    "what is (the command|command) {x} (for|)",
    "what does (the |)(command {x}|{x} command) do",
    "(explain|tell me about) {e} {x}",
    "(explain|tell me about) the {x} command",
    "what (happens when|happens if) i (run|type|use|call) {e} {x}",
    "when (do|should|would) i (use|need|run) {e} {x}",
    "{e} {x}",
    "(how do|how can) i use {e} {x}",
    "(can|could) you (explain|tell me) what {e} {x} does",
    "do you know what {e} {x} does",
    "tell me what {e} {x} does",
    "what can i do with {e} {x}",
    "why (would|should|do) i (use|run) {e} {x}",
    "what is the use of {e} {x}",
    "i do not understand {e} {x}",
    "what is {e} {x} good for",
    "what about {e} {x}",
    "help {e} {x}",
    "help (with|on|for) {e} {x}",
    "how does {e} {x} work",
)
# Command -> what a user wants to do with it: "how do I ...".
DOINGS: dict[str, tuple[str, ...]] = {
    "try": (
        "(try|test) (the demo|it|edgesppo) (quickly|at once|first|)",
        "(start|run|use) the demo",
    ),
    "chat": ("(start|open|begin|have) a (chat|conversation)", "(talk|chat) (with|to) a model"),
    "run": (
        "get (just |only |)(one|a single) answer",
        "ask (one|a single|just one) question( from the shell|)",
    ),
    "serve": (
        "(start|open|run) (a|the|an) (server|api|api server|http server|web page|chat page)",
        "use the openai api",
    ),
    "batch": (
        "(answer|process|run) (many|lots of|hundreds of|a file of|a list of) "
        "(prompts|questions)( at once|)",
        "(process|answer|work through) a (json lines|jsonl|prompt) file",
    ),
    "pull": ("(download|fetch) a model( from the hub|)", "get a new model"),
    "list": (
        "(list|see) (my|all|the|all my) (installed |)models",
        "(see|find out|know) (which|what) models i have",
    ),
    "show": (
        "(see|get|print) (the |)(details|information) (of|about|on) a model",
        "look (into|at) a model( file|)",
    ),
    "verify": (
        "(check|verify|test) (a|my|the) model( file|'s hash|)",
        "(know|be sure|see) (that|if|whether) (a|my) file is (intact|broken|damaged|complete)",
    ),
    "rm": (
        "(remove|delete|erase|uninstall) (a|an old|my|the) model( from (disk|the disk|the "
        "store|my computer)|)",
        "free (disk space|some space|space)",
        "get rid of a model",
    ),
    "lock": (
        "(write|update|change|make) (the lock file|models.lock)",
        "(pin|lock) a model('s hash|)",
    ),
    "eval": (
        "measure (the |)(quality|perplexity|divergence)( of a model|)",
        "(run|start) alpacaeval",
        "(find out|see|know|tell) how good a model is",
    ),
    "bench": (
        "measure (the |)(speed|tokens per second)( of a model|)",
        "(find out|see|know|tell) how fast (a model|my machine|it) is",
        "run a (benchmark|speed test)",
    ),
    "doctor": (
        "(check|test) (my|the|this) (machine|installation|setup|computer)",
        "(find out|see|know) (what is wrong|why it does not work|if all is well)",
    ),
    "tokenize": (
        "(see|get|print|count) (the |)(tokens|token ids)( of a text|)",
        "tokenize (a text|text|a sentence|something)",
    ),
}
DOING_ASKS = (
    "(how do i|how can i|how to|how do you|how could i) {do}",
    "i (want|need|would like|wish) to {do}",
    "(what|which) command (do i use|should i use|do i need|is there|lets me) to {do}",
    "(can i|could i|may i|is it possible to) {do}",
    "(what do i type|what should i run|what must i do) to {do}",
    "(tell me|show me|explain) how to {do}",
    "{do}: (how|which command)",
)
COMMAND_NAMES_ASKS = (
    "(which|what) command {does}",
    "(what is|what's|tell me|name) the command that {does}",
    "(is there|do you have) a command that {does}",
    "i (need|want|look for) the command that {does}",
    "(which|what) (edgesppo |)command {does}",
    "i (need|want) something that {does}",
)
