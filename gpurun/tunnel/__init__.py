"""Tunnels to TensorBoard, Jupyter or any port on a host; they stay open while the connection behind them reconnects."""
