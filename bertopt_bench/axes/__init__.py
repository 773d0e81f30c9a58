"""The choices. Each module is one axis; each public function in it is one entry."""
