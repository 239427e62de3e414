// Addresses of the page: what stands behind the "#".

/** Returns the view that an address names, and its parameters: of "#keys?prefix=user:" for example. */
export function askedIn(hash) {
  const [, view, query] = /^#?([^?]*)\??(.*)$/s.exec(hash);
  return [view, new URLSearchParams(query)];
}
