"""The model of a high-content-screening plate; pure, it reads and writes nothing."""
