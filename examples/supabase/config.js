// Of your project: its address, or that of your gateway, and its anon or publishable key.
window.SUPABASE_URL = 'http://localhost:8000'
window.SUPABASE_KEY = 'your-anon-key'
