"""Audits: each day every node proves that it still has random shares; what passed is paid, what did not goes to repair funds.

challenges.py: what is asked, what is a proof      memory.py: what is known from before      auditor.py: when, second chances, releases
"""
