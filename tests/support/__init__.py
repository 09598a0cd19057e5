"""What tests of several tiers share; a test imports another only to play its suite again.

`hosts`: machines with sshd. `runners`: runners on one host, and clients of them. `buckets`: stores, real and fake.
`people`: a home, a project and the real `dstack`; teams of them. `code`: states of a repository. `records`: what a
bucket holds. `secrets`: keyrings, and the search for leaks. `faults`: whatever breaks things from outside.
`simulator`: the steps in a world without clocks. `lab`: two accounts on each of two hosts, in a storm.
"""
