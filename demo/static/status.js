// Shows what the cache would say of this page now; HEAD is answered from what GET left there.
fetch(location.href, { method: "HEAD" }).then((response) => {
  document.getElementById("status").textContent = response.headers.get("cache-status");
});
