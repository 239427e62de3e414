// Addresses of the page: what stands behind the "#".

/** Returns the view that an address names, and its parameters: of "#keys?prefix=user:" for example. */
export function askedIn(hash) {
  const [, view, query] = /^#?([^?]*)\??(.*)$/s.exec(hash);
  return [view, new URLSearchParams(query)];
}

/** Returns the address of the view of keys with some of its parameters changed; null takes one out. */
export function addressOf(changes) {
  const [, asked] = askedIn(location.hash);
  for (const [name, value] of Object.entries({ ...("key" in changes ? { new: null } : {}), ...changes })) {
    if (value === null || (value === "" && name !== "new")) asked.delete(name);
    else asked.set(name, value);
  }
  return `#keys${asked.size ? `?${asked}` : ""}`;
}
