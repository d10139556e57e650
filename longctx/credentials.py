"""Credentials inside URLs: found, so that they can be refused, and masked wherever text is shown.

A URL is written down in many places (records, manifests, logs, messages), so a secret in it cannot
be kept. Recipes and arguments with one are refused; messages are masked as well, because libraries
quote URLs of their own in what they raise.
"""

import re

MASK = "(masked)"
REMEDY = (
    "leave it out: stores take credentials from the environment (AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY, ...) or from their own configuration files"
)

# A colon that is not before a port number begins a password, which may hold slashes; so does any
# user of schemes whose URLs have no other. `container@account` of Azure and `user@host` of SFTP
# hold no secret.
_PASSWORD = re.compile(r"(://)[^\s/@:]*:(?!\d*(?:[/?#\s'\",;)\]}]|$))[^\s@]*@")
_USER = re.compile(r"(?i)\b((?:https?|s3a?)://)[^\s/@]+@")
_SIGNED = re.compile(
    r"(?i)(?<=[?&;])((?:x-(?:amz|goog)-(?:signature|credential|security-token)"
    r"|(?:aws|google)?accesskeyid|googleaccessid|signature|sig|(?:access_?|auth_?)?token"
    r"|api_?key|secret|password)=)[^&#\s'\"]+"
)


def found_in(url: str) -> str | None:
    """What kind of credential a URL holds, or None."""
    if _PASSWORD.search(url) or _USER.search(url):
        return "a user name or password"
    if "://" in url and _SIGNED.search(url):
        return "a signature or token"
    return None


def masked(text: str) -> str:
    """The text with credentials in the URLs in it replaced by `(masked)`."""
    if "://" in text:
        text = _USER.sub(rf"\1{MASK}@", _PASSWORD.sub(rf"\1{MASK}@", text))
    return _SIGNED.sub(rf"\1{MASK}", text) if "=" in text else text
