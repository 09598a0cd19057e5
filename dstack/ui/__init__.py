"""What people and scripts see: tables, screens of attached runs, JSON; and the filter for foreign text."""
