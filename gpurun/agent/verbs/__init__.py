"""The questions that the laptop asks, one a module: `answer(request, host)`, and `stream(request, host, out)` where it goes on."""
