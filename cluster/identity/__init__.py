"""Who may call: the signing key, access tokens, API keys, and Ray's own cluster token.

Everything here makes credentials; `edge_runtime.auth` checks them with public parts only.
"""
