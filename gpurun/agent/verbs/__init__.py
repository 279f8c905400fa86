"""Answer the requests of the laptop, one verb in each module: `answer(request, host)`, then `stream(request, host,
out)`.
"""
