"""Ways to what runs on a host: TensorBoard, Jupyter, any port; they stay open while the connection behind them heals."""
