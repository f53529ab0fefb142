"""What a trace says: one file per question. Calculations only; nothing here prints, plots or imports torch."""
