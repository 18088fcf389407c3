"""The practice suite: networks as users have them, to steer training by.

None of these tasks is in a meta-training set. Half of them serve decisions
while weights are being trained; the other half is opened only for the final
table of a campaign, so that tuning to the suite would show.
"""
