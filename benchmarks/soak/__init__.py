"""A long run against a faulty upstream: does the server leak, stall, or lose a chunk?"""
