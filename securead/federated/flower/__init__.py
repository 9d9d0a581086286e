"""The executor for real institutions: the rounds of `federated.coordinator` and `participant` over Flower.

Flower (extra `[flower]`) brings the message API, the Fleet protocol between nodes and its authentication. Nothing of it
runs in a process of its own (docs/adr/0011-flower.md): the coordinator's process serves Flower's Fleet API and nothing
else, over mutual TLS 1.3, and a site's process is its own SuperNode. Import `installed` first, and call its `require`.
"""
