"""The exception tree: every error that a user can meet, one clear line each.

EftlocalError
├── UsageError            a bad option value or a bad request: what is wrong, what is allowed
├── RegistryError         models.toml or the named model entry
├── HubError              a file that the Hugging Face hub or its cache does not give
│   └── NotDownloaded     a file that is not in the cache yet
├── ModelFileError        a file that is missing, truncated, or not a GGUF that loads
├── VocabularyMismatch    models whose token ids mean different things
├── PromptError           a chat template or conversation that cannot become a prompt
├── ContextFull           a prompt that does not fit the context
├── ConstraintError       a schema, regex or grammar that became too complex, or allows nothing
└── BackendError          llama.cpp reported a failure, or its Python package does not fit
"""


class EftlocalError(Exception):
    """Base of all errors of this package; the message is one line meant for the user."""


class UsageError(EftlocalError, ValueError):
    """An option or argument has a value that is not allowed."""


class RegistryError(EftlocalError):
    """models.toml is invalid, or names no such model entry."""


class HubError(EftlocalError):
    """A file cannot be had from the Hugging Face hub or its cache; says why, and what to do."""


class NotDownloaded(HubError):
    """A file of the hub is not in the cache yet; says how to get it."""


class ModelFileError(EftlocalError):
    """A model file is missing, truncated, or not a GGUF that llama.cpp can load."""


class VocabularyMismatch(EftlocalError):
    """Two models of one entry disagree about what a token id means."""


class PromptError(EftlocalError):
    """A conversation could not be rendered into a prompt."""


class ContextFull(EftlocalError):
    """A prompt needs more tokens than the context has; nothing was evaluated."""


class ConstraintError(EftlocalError):
    """A constraint failed in the middle of a generation, which has ended; others go on."""


class BackendError(EftlocalError):
    """llama.cpp failed, or the installed llama-cpp-python lacks what is needed."""
