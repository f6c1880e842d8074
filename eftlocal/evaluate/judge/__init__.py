"""Open answers, judged by other language models in the three roles of the EFT paper.

Alone imports openai. Nothing is sent anywhere unless a judge is named: without one the questions
to a judge are written to a file, and verdicts that were given elsewhere are read back.
"""
