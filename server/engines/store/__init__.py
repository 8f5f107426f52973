"""The store of weights: pulled from a hub or registered from a folder, verified, recorded.

What is pulled lies in the hub's own cache (`places.py` says where), in its own layout, so that vLLM
and every other program that reads that cache finds it, without a network.
"""
