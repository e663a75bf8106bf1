"""What tests share: tiny models, servers, laws."""
