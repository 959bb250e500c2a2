"""What the document store keeps, collection by collection: the one place to look for what outlives a conversation."""

from visavis.core.ports import Collection, Index

REPORTS = Collection(
    "reports",
    indexes=(Index("status", ("status",)), Index("reported", ("reported",))),
    text=("words", "messages"),
)
"""One guest's complaint about another, for moderators.

`at`: ms since the epoch. `conversation`: its id. `reporter`, `reported`: devices. `reason`: a code of the contract.
`words`: what the reporter wrote. `messages`: those the reporter chose to show, a list of {id, mine, text, at}.
`files`: those the reporter chose, a list of {id, kind, name, type, bytes, mine, kept}; of those that were gone already,
{id, kept: false}. What is kept lies among the blobs as `kept/{file}/main`.
`status`: "open" until a moderator has decided.
"""

BLOCKS = Collection(
    "blocks",
    indexes=(
        Index("blocker", ("blocker",)),
        Index("blocked", ("blocked",)),
        Index("pair", ("blocker", "blocked"), unique=True),
    ),
)
"""Who never wants to meet whom again: `blocker` and `blocked` are devices, `at` is ms since the epoch.

Read both ways before a guest waits for a match, since neither side may be given the other.
"""

RECORDINGS = Collection(
    "recordings",
    indexes=(Index("device", ("device",)), Index("recording", ("recording",))),
)
"""A recorded call, once for each of the two browsers that may have it, until it expires.

`recording`: its id, and the name of its file. `device`: whose it is. `at`: when it began, in ms since the epoch.
`expires_at`, likewise. `bytes`, `seconds`: its size. No names, no words.
"""

EVIDENCE_ACCESS = Collection("evidence_access", indexes=(Index("report", ("report",)),))
"""Each time a moderator reached for a file, written before it was given: `at`, in ms since the epoch, `by` whom, `what`
("save", "withdraw"), `report` (empty for none) and `file`: their ids.
"""

ALL = (REPORTS, BLOCKS, RECORDINGS, EVIDENCE_ACCESS)
"""Every collection; the stores make tables and indexes for these and refuse others."""
