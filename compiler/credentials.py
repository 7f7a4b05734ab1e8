"""What looks like a credential, which no config, script, log or setting of a pod may hold."""

import re

# Shapes of credentials. Sources: the issuers' own documents.
SECRET_SHAPES = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a RunPod API key": re.compile(r"\brpa_[A-Za-z0-9]{30,}"),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(r"\b(ghp|gho|ghs|github_pat)_[A-Za-z0-9_]{30,}"),
    "an OpenAI-style key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a JSON web token": re.compile(
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    ),
}

# Names under which people hand credentials to programs.
_CREDENTIAL_NAME = re.compile(
    r"(.*_)?(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|SECRET|PRIVATE)_?KEY)",
    re.IGNORECASE,
)
_CREDENTIAL_LENGTH = 8
_PASSWORD_IN_ADDRESS = re.compile(r"\w+://[^/\s:@]*:[^/\s@]+@")
_TOKEN_IN_ADDRESS = re.compile(
    r"://\S*[?&]\w*(token|key|secret|password)=[^&\s]{8,}", re.IGNORECASE
)


def credential_in(name: str, value: str) -> str | None:
    """Return what a variable's value looks like if that is a credential, by itself or by its name.

    >>> credential_in("DB", "postgres://me:" + "secret" + "@db.example.org/x")
    'a password in an address'
    >>> credential_in("WANDB_API_KEY", 10 * "0a1b"), credential_in("MAX_TOKEN", "512")
    ('a credential, by its name', None)
    """
    for kind, shape in SECRET_SHAPES.items():
        if shape.search(value):
            return kind
    if _PASSWORD_IN_ADDRESS.search(value):
        return "a password in an address"
    if _TOKEN_IN_ADDRESS.search(value):
        return "a credential in an address"
    is_named = _CREDENTIAL_NAME.fullmatch(name) is not None
    is_long = len(value) >= _CREDENTIAL_LENGTH and not value.isdecimal()
    return "a credential, by its name" if is_named and is_long else None


def without_secrets(text: str) -> str:
    """Return a text with everything that looks like a credential struck out.

    >>> without_secrets("model.revision=hf_" + 30 * "a")
    'model.revision=***'
    """
    for shape in SECRET_SHAPES.values():
        text = shape.sub("***", text)
    return text
