if not is_live() then return false end
return head()
