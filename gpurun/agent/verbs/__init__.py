"""The questions that the laptop asks, one a module: `answer(request, host)`; `stream(request, host, out)` goes on."""
