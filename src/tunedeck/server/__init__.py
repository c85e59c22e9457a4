"""HTTP in front of serving/: the shapes that OpenAI's, vLLM's and TEI's clients already speak."""
